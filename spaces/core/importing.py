"""Import of custom models, data sets, losses and augmentations by dotted name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from spaces.core.errors import RequestError, unknown

FORMS = "write `package.module:attribute` or `package.module.attribute`"


def import_dotted(name: str) -> Any:
    """Import the object that a dotted name refers to.

    Importing a module runs its code, so pass trusted names only.

    Args:
        name: `package.module:attribute` or `package.module.attribute`.

    Raises:
        RequestError: The name has neither form, the module or the attribute does not exist, or the module raised an
            error while it was imported.

    Example:
        >>> from spaces.core.importing import import_dotted
        >>> import_dotted("math:sqrt")(4)
        2.0
    """
    module_name, attribute = check_dotted(name)
    found: Any = _module(module_name, name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise unknown(f"attribute of {module_name}", part, _public(found)) from None
    return found


def accepted_options(factory: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `options` that `factory` accepts as keyword arguments; all of them if it has `**kwargs`.

    Raises:
        RequestError: `factory` is not callable, or has no signature.

    Example:
        >>> from spaces.core.importing import accepted_options
        >>> def factory(size, channels=1): ...
        >>> accepted_options(factory, {"size": 8, "classes": 10})
        {'size': 8}
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        hint = "name a function or a class"
        raise RequestError("a factory must have a signature", value=factory, hint=hint) from error
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(options)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {key: value for key, value in options.items() if key in named}


def check_dotted(name: str) -> tuple[str, str]:
    """Split a dotted name into module and attribute, without an import.

    Raises:
        RequestError: The name has neither form.

    Example:
        >>> from spaces.core.importing import check_dotted
        >>> check_dotted("package.module.attribute")
        ('package.module', 'attribute')
    """
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        raise RequestError("a dotted name must have a module and an attribute", value=name, hint=FORMS)
    return module, attribute


def _module(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            rule = f"cannot import {module!r} for {name!r}: there is no module {missing!r}"
            raise RequestError(rule, hint="put its folder on PYTHONPATH, or correct the name") from error
        raise RequestError(f"importing {module!r} failed: {type(error).__name__}: {error}") from error


def _public(found: object) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]
