"""What a user names with a dot: a model, a data set or an augmentation of their own, to import and call."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from spaces.core.errors import RequestError, unknown

FORMS = "write `package.module:attribute` or `package.module.attribute`"


def import_dotted(name: str) -> Any:
    """The object that `package.module:attribute` or `package.module.attribute` names.

    The module is imported, so its code runs: only names from the user's own files come here.

    Raises:
        RequestError: the name has neither form; there is no such module, or no such attribute in it; or the
            module was found and raised while it was imported, which is told in its own words.
    """
    module_name, attribute = check_dotted(name)
    found: Any = _module(module_name, name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise unknown(f"attribute of {module_name}", part, _public(found)) from None
    return found


def accepted(factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that `factory` takes as keyword arguments: all of them where it takes `**anything`.

    Raises:
        RequestError: `factory` cannot be called, or does not say what it takes.
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        hint = "name a function or a class"
        raise RequestError("a factory says which arguments it takes", value=factory, hint=hint) from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(options)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {key: value for key, value in options.items() if key in named}


def check_dotted(name: str) -> tuple[str, str]:
    """Module and attribute of a dotted name, without importing anything.

    Raises:
        RequestError: it has neither form.
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise RequestError("a factory's name has a module and an attribute", value=name, hint=FORMS)
    return module, attribute


def _module(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            rule = f"{name!r} names the module {module!r}, and there is no module {missing!r}"
            raise RequestError(rule, hint="put its folder on PYTHONPATH, or correct the name") from error
        raise RequestError(f"importing {module!r} failed: {type(error).__name__}: {error}") from error


def _public(found: object) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]
