"""Build hooks of the documentation: reference pages and figures that are generated from the code and the results.

A page asks for generated text by a line `<!-- generated: NAME ARGUMENT -->`, and for one figure of a committed result
file by `{{ step.policy_over_plain:.2f }}`: file, key of its summary, Python format.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROOMS = ("search", "trainables", "results", "spaces")

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

DOCUMENTED: Mapping[str, tuple[str, ...]] = {
    "search": ("search.algorithms.base",),
    "trainables": ("trainables.data", "trainables.data.source", "trainables.losses"),
    "results": (
        "results.analysis.evaluation",
        "results.analysis.schedule_diff",
        "results.analysis.summary",
        "results.reporting.html",
        "results.reporting.policy_view",
        "results.runlog.export",
        "results.runlog.history",
    ),
    "spaces": ("spaces.augmentations", "spaces.augmentors.base", "spaces.importers"),
}
"""Modules whose public classes and functions the API reference shows, beside those that the package exports."""

_DIRECTIVE = re.compile(r"^<!-- generated: (\w+) ?(\S*) -->$", re.MULTILINE)
_FIGURE = re.compile(r"\{\{ *(\w+)\.(\w+)(?::([^} ]*))? *\}\}")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the directives and figures of a page."""
    return _FIGURE.sub(_figure, _DIRECTIVE.sub(_generated, markdown))


def _generated(match: re.Match[str]) -> str:
    name, argument = match.groups()
    if name not in GENERATORS:
        raise PluginError(f"unknown generator: {name}")
    return GENERATORS[name](*([argument] if argument else []))


def _figure(match: re.Match[str]) -> str:
    name, key, form = match.groups()
    summary = result(name)["summary"]
    if key not in summary:
        raise PluginError(f"benchmarks/results/{name}.json has no {key}")
    return format(summary[key], form or "").replace("-", "−").replace("%", "\N{NO-BREAK SPACE}%")


def result(name: str) -> dict[str, Any]:
    """Return the content of a committed result file."""
    try:
        content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    except OSError as error:
        raise PluginError(f"no result file for {name}") from error
    return content


def provenance(name: str) -> str:
    """Return where the figures of a result file come from, as an admonition."""
    content = result(name)
    scripts = [path for path in (ROOT / "benchmarks").rglob(f"{name}.py") if path.parent.name != "results"]
    if len(scripts) != 1:
        raise PluginError(f"no script, or several, for {name}")
    module = ".".join(scripts[0].relative_to(ROOT).with_suffix("").parts)
    versions = ", ".join(f"{package} {number}" for package, number in content["versions"].items())
    device = content["device"]
    machine = f"{device['cpu']}, {device['cores']} cores, {device.get('gpu') or 'no GPU'}"
    return (
        f'!!! info "Source"\n\n'
        f"    - Command: `python -m {module}`\n"
        f"    - Rows: `benchmarks/results/{name}.json`\n"
        f"    - Commit: `{content['commit'][:8]}`, {content['date'][:10]}, seed {content['seed']}\n"
        f"    - Machine: {machine}\n"
        f"    - Versions: {versions}\n"
    )


TABLES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "hard_shift": (
        ("Arm", "arm", "{}"),
        ("Test accuracy on shifted digits, %", "accuracy", "{:.1%}"),
        ("± 95 %", "half_width_95", "{:.1%}"),
        ("Student steps", "student_steps", "{:.0f}"),
        ("Augmentor steps", "augmentor_steps", "{:.0f}"),
    ),
    "hard_corrupted": (
        ("Set", "set", "{}"),
        ("Arm", "arm", "`{}`"),
        ("Clean test, %", "clean", "{:.1%}"),
        ("Corrupted test, %", "corrupted", "{:.1%}"),
        ("± 95 %", "corrupted_half_width_95", "{:.1%}"),
    ),
    "t_stddev": (
        ("Augmentation", "augmentation", "`{}`"),
        ("T. stddev", "t_stddev", "{:.4f}"),
        ("Ratio to identity", "ratio", "{:.3f}"),
        ("Agreement", "agreement", "{:.2f}"),
        ("Student's test loss", "test_loss", "{:.4f}"),
        ("Student's test accuracy, %", "test_accuracy", "{:.2%}"),
    ),
    **dict.fromkeys(
        ("target_domain", "search_pays"),
        (
            ("Data", "place", "{}"),
            ("Role", "role", "{}"),
            ("Arm", "arm", "{}"),
            ("Test accuracy, %", "accuracy", "{:.2%}"),
            ("± 95 %", "half_width_95", "{:.2%}"),
            ("Without confirmation, %", "unconfirmed_accuracy", "{:.2%}"),
            ("Cost, s", "seconds", "{:.0f}"),
        ),
    ),
    "role_wise": (
        ("Arm", "arm", "`{}`"),
        ("Test accuracy, %", "accuracy", "{:.2%}"),
        ("± 95 %", "half_width_95", "{:.2%}"),
        ("Mean strength, 0 to 9", "strength", "{:.1f}"),
        ("Training of one student, s", "seconds", "{:.1f}"),
    ),
    "projection": (
        ("Teacher", "teacher", "{}"),
        ("Loss", "loss", "`{}`"),
        ("Projection", "projection", "`{}`"),
        ("Test accuracy, %", "accuracy", "{:.1%}"),
        ("± 95 %", "half_width_95", "{:.1%}"),
    ),
}
"""Columns of the tables of rows: heading, key of the row, format."""


def rows(name: str) -> str:
    """Return the rows of a result file that have a value in each of the first two columns and in the last but one."""
    columns = TABLES[name]
    lines = ["| " + " | ".join(heading for heading, _, _ in columns) + " |", "| --- " * len(columns) + "|"]
    for row in result(name)["rows"]:
        if row.get(columns[1][1]) is None or row.get(columns[-2][1]) is None:
            continue  # rows of another kind, such as differences
        values = (_value(row.get(key), form) for _, key, form in columns)
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def _value(value: Any, form: str) -> str:
    return "" if value is None else form.format(value).removesuffix("%")


def examples(folder: str) -> str:
    """Return the sweep files of a folder of `examples`, each with its leading comment."""
    lines = ["| File | Shows |", "| --- | --- |"]
    for path in sorted((ROOT / "examples" / folder).glob("*.yaml")):
        comment = [line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
        lines.append(f"| `examples/{folder}/{path.name}` | {_cell(' '.join(comment))} |")
    return "\n".join(lines) + "\n"


def tree() -> str:
    """Return the sub-packages and modules of the four packages, each with the first line of its docstring."""
    lines = []
    for room in reversed(ROOMS):
        lines += [f"### {room}\n", "| Module | Content |", "| --- | --- |"]
        for path in sorted((ROOT / room).glob("*")):
            source = path / "__init__.py" if path.is_dir() else path
            if source.suffix != ".py" or not source.is_file() or path.name.startswith("__"):
                continue
            summary = _first_paragraph(ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "")
            lines.append(f"| `{room}/{path.name}{'/' if path.is_dir() else ''}` | {_cell(_linked(summary))} |")
        lines.append("")
    return "\n".join(lines)


def changelog() -> str:
    """Return the changelog without its title."""
    return (ROOT / "CHANGELOG.md").read_text("utf-8").partition("\n")[2]


# --- configuration ----------------------------------------------------------------------------------------------------


def configuration() -> str:
    """Return the reference of the sweep file, from its schema: one heading and one table a section."""
    from search.config.schema import SweepConfig

    schema = SweepConfig.model_json_schema(by_alias=True)
    return "\n".join(_section("", schema, schema["$defs"], {}))


def _section(place: str, node: Mapping[str, Any], defs: Mapping[str, Any], shown: dict[str, str]) -> Iterator[str]:
    """Yield a heading and a table for the mapping at `place`, then for the mappings in it."""
    about = _first_paragraph(node.get("description", ""))
    documented = _arguments(node.get("description", ""))
    required = node.get("required", ())
    yield f"## {f'`{place}`' if place else 'Top level'} {{ #{_anchor(place)} }}\n"
    if about and place:
        yield f"{about}\n"
    yield "| Key | Type | Default | Meaning |"
    yield "| --- | --- | --- | --- |"
    inner: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in node.get("properties", {}).items():
        path = f"{place}.{key}" if place else key
        reference = _reference(value)
        text = value.get("description") or documented.get(key, "")
        if reference is not None:
            choices = value.get("anyOf", ())
            several = " or a list of them" if any("oneOf" in choice for choice in choices) else ""
            nullable = " or `null`" if any(choice.get("type") == "null" for choice in choices) else ""
            target = shown.get(reference, path)
            if reference not in shown:
                shown[reference] = path
                inner.append((path, defs[reference]))
            kind, default = f"[mapping](#{_anchor(target)}){several}{nullable}", ""
            text = text or _first_paragraph(defs[reference].get("description", ""))
        else:
            kind, default = _type(value), _default(value)
        if key in required:
            default = "required"
        yield f"| `{key}` | {_cell(kind)} | {_cell(default)} | {_cell(_sentence(text))} |"
    yield ""
    for path, section in inner:
        yield from _section(path, section, defs, shown)


def _anchor(place: str) -> str:
    return place.replace(".", "-").replace("_", "-") or "top-level"


def _reference(node: Mapping[str, Any]) -> str | None:
    """Return the name of the mapping that a value of the schema refers to."""
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    choices = (choice for key in ("anyOf", "oneOf", "allOf") for choice in node.get(key, ()))
    return next((found for choice in choices if (found := _reference(choice))), None)


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _type(node: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with its bounds."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(_type(choice) for choice in node["anyOf"]))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    bounds = ", ".join(f"{sign} {node[name]:g}" for name, sign in _BOUNDS.items() if name in node)
    kind = node.get("type", "any")
    if kind == "null":
        return "`null`"
    if kind == "array":
        items = node.get("items") or (node.get("prefixItems") or [{}])[0]
        inner = _type(items) if items else "any"
        return f"list of {inner}"
    if kind == "object":
        return "mapping"
    return f"{kind}, {bounds}" if bounds else str(kind)


def _default(node: Mapping[str, Any]) -> str:
    return f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else ""


def _first_paragraph(docstring: str) -> str:
    return docstring.strip().split("\n\n")[0].replace("\n", " ")


def _arguments(docstring: str) -> dict[str, str]:
    """Return the entries of a docstring's `Args:`."""
    from griffe import Docstring, DocstringSectionKind

    sections = Docstring(docstring).parse("google", warnings=False)
    found = (section for section in sections if section.kind is DocstringSectionKind.parameters)
    return {each.name: " ".join(each.description.split()) for section in found for each in section.value}


def _sentence(text: str) -> str:
    text = re.sub(r"(?<!`)\bnull\b(?!`)", "`null`", text.strip())
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# --- command line -----------------------------------------------------------------------------------------------------


def commands() -> str:
    """Return the reference of the command line, from the application itself."""
    import typer

    from search.cli import app

    group: Any = typer.main.get_command(app)
    return "\n".join(line for name in group.commands for line in _command(name, group.commands[name]))


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if type(each).__name__.endswith("Argument")]
    options = [each for each in command.params if each not in arguments]
    usage = " ".join(["roletune", name, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])])
    yield f"## `roletune {name}` {{ #{name} }}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield f"```text\n{usage}\n```\n"
    if command.params:
        yield "| Argument or option | Default | Meaning |"
        yield "| --- | --- | --- |"
        for each in (*arguments, *options):
            yield f"| {_names(each)} | {_option_default(each)} | {_cell(_sentence(each.help or ''))} |"
        yield ""
    examples = [line.removeprefix("Example:").strip() for line in (command.epilog or "").splitlines() if line.strip()]
    if examples:
        yield "```sh\n" + "\n".join(examples) + "\n```\n"


def _usage(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if parameter.opts == [parameter.name]:
        return f"`{parameter.metavar or parameter.name.upper()}`"
    value = "" if parameter.is_flag else f" {parameter.metavar or 'VALUE'}"
    return ", ".join(f"`{option}{value}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _option_default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False, ()) or callable(parameter.default) else f"`{parameter.default}`"


# --- catalog and API --------------------------------------------------------------------------------------------------


def choices() -> str:
    """Return the table that `roletune list --markdown` prints."""
    from search.config.catalog import markdown

    return re.sub(
        r"^\| `([^`]+)`", lambda names: f"| `{names[1].replace(', ', '`, `')}`", markdown(), flags=re.MULTILINE
    )


def catalog(name: str) -> str:
    """Return one setting's names with their options, as `roletune list NAME` has them."""
    from search.config.catalog import setting

    rows = setting(name).names.items()
    lines = ["| Name | Options and defaults | Meaning |", "| --- | --- | --- |"]
    for choice, (options, about) in rows:
        shown = ", ".join(f"`{option}`" for option in options.split(", ") if option)
        lines.append(f"| `{choice}` | {_cell(shown)} | {_cell(_linked(about))} |")
    return "\n".join(lines) + "\n"


def _linked(text: str) -> str:
    """Return text whose addresses are links."""
    return re.sub(r"https?://[^\s)]*[^\s).,]", r"<\g<0>>", text)


def facade() -> str:
    """Return a table of the names that `import roletune` offers, each linked to its entry."""
    import roletune

    lines = ["| Name | Meaning |", "| --- | --- |"]
    for name in sorted(roletune.__all__):
        value = getattr(roletune, name)
        summary = _cell(_first_paragraph(inspect.getdoc(value) or "")) if _documented(value) else "A constant."
        label = f"[`roletune.{name}`][{_path(value)}]" if _documented(value) else f"`roletune.{name}`"
        lines.append(f"| {label} | {summary} |")
    return "\n".join(lines) + "\n"


def api(room: str) -> str:
    """Return the entries of one package: what it exports, what the facade takes from it, and `DOCUMENTED`."""
    import roletune

    values = [getattr(roletune, name) for name in roletune.__all__]
    for name in (room, *DOCUMENTED[room]):
        values += _public(importlib.import_module(name))
    entries = {_path(value) for value in values if _documented(value) and value.__module__.partition(".")[0] == room}
    return "\n\n".join(f"::: {path}" for path in sorted(entries, key=lambda path: path.rpartition(".")[2].lower()))


def _public(module: ModuleType) -> list[Any]:
    """Return what a module exports: `__all__`, or else the public classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return [getattr(module, name) for name in module.__all__]
    members = (value for name, value in vars(module).items() if not name.startswith("_"))
    return [value for value in members if getattr(value, "__module__", "") == module.__name__]


def _documented(value: Any) -> bool:
    """Return True for a class or function of the project."""
    is_callable = inspect.isclass(value) or inspect.isfunction(value)
    return is_callable and value.__module__.partition(".")[0] in ROOMS


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


GENERATORS: Mapping[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        api,
        catalog,
        changelog,
        choices,
        commands,
        configuration,
        examples,
        facade,
        provenance,
        rows,
        tree,
    )
}
"""Name → generator that a page may ask for."""
