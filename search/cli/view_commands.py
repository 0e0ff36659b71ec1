"""Commands that show policies, sweeps, and what a sweep file can choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from search.cli.application import app
from search.cli.options import Json, Own

if TYPE_CHECKING:
    from spaces import Schedule


@app.command(
    epilog="Example: roletune export runs/digits-001 --role student -o policy.json\n\n"
    "Example: roletune export --from pba rcifar10_16_wrn.txt --epochs 200 -o policy.json\n\n"
    "Example: roletune export --from autoaugment cifar10 --epochs 200 -o policy.json"
)
def export(
    run: Annotated[
        str, typer.Argument(help="folder of a sweep, or id of its MLflow run; with --from: the file, or the table")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="P.json", help="policy file to write")],
    role: Annotated[str, typer.Option(help="teacher or student")] = "student",
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store of the run id; default: MLFLOW_TRACKING_URI")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--from", metavar="KIND", help="format of a policy made elsewhere: pba, ray, autoaugment"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="with --from: epochs of the schedule")] = None,
    size: Annotated[int | None, typer.Option(help="with --from: side of the images, in px; default: 32")] = None,
    fill: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="with --from: mean color of the images; one number for gray images"),
    ] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Write the best policy of a sweep, finished or not; with --from one that was made elsewhere."""
    if kind is None:
        _refuse("must go with --from", {"--epochs": epochs, "--size": size, "--fill": fill})
        from results.runlog.export import export_policy

        schedule = export_policy(run, role, tracking_uri, own or ())
    else:
        _refuse("must go without --from", {"--tracking-uri": tracking_uri})
        schedule = _read(kind, run, role, epochs, size, fill)
    schedule.save(output)
    provenance = schedule.provenance
    facts = {"policy": str(output), "role": schedule.role, "epochs": schedule.epochs, **provenance}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    if kind is None:
        origin = f"{provenance.get('run')}, validation accuracy {provenance.get('value')}"
    else:
        origin = f"{len(schedule.phases)} phase(s) from {run}, mean strength {schedule.mean_strength():.2f}"
    line = f"{output}: {role}, {schedule.epochs} epochs, {origin}"
    Console().print(escape(line), highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: roletune show policy.json --grid grid.png --images photos --epochs 0,10,50\n\n"
    "Example: roletune show runs/digits-001/effects.json --plot effects.png"
)
def show(
    policy: Annotated[Path, typer.Argument(metavar="P.json", help="policy file, or effects.json of a sweep")],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", "-o", metavar="FILE.png", help="plot the strengths over the epochs, or the effects"),
    ] = None,
    grid: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw augmented images of --images")] = None,
    images: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="image, or folder of images; may be repeated")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="0,10,50", help="epochs of the grid; default: the last of each quarter")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="largest number of images; more are sampled evenly")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="augmented images for each image and epoch")] = 2,
    seed: Annotated[int, typer.Option(help="seed of the grid")] = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Show a policy as a table, a plot and a grid of augmented images; or the effects of a factorial search."""
    from results.analysis.effects import holds_effects
    from results.reporting.policy_view import describe_policy, parse_epochs
    from spaces import Schedule

    if holds_effects(policy):
        _refuse("must go with a policy file", {"--grid": grid, "--images": images, "--epochs": epochs})
        _show_effects(policy, plot, as_json)
        return
    chosen = None if epochs is None else parse_epochs(epochs)
    schedule = Schedule.load(policy, own or ())
    seen = describe_policy(
        schedule, plot=plot, grid=grid, images=images or (), epochs=chosen, rows=rows, draws=draws, seed=seed
    )
    written = {kind: str(path) for kind, path in (("plot", plot), ("grid", grid)) if path is not None}
    if as_json:
        typer.echo(json.dumps({"policy": str(policy), **seen.to_json(), **written}))
        return
    console = Console()
    console.print(seen)
    for kind, path in written.items():
        console.print(f"{kind}: {escape(path)}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune diff runs/digits-001/policy.teacher.json runs/digits-001/policy.student.json")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="first policy file")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="second policy file")],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", "-o", metavar="FILE.png", help="plot both, and the difference of their strengths"),
    ] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Show the differences between two policies by operation and epoch."""
    from results.analysis.schedule_diff import compare_schedules
    from spaces import Schedule

    if plot is not None:
        from results.reporting.policy_view import check_png

        check_png(plot)
    found = compare_schedules(Schedule.load(a, own or ()), Schedule.load(b, own or ()))
    if plot is not None:
        from results.plots.schedule import plot_difference

        plot_difference(found, plot, (str(a), str(b)))
    if as_json:
        written = {} if plot is None else {"plot": str(plot)}
        typer.echo(json.dumps({"a": str(a), "b": str(b), **found.to_json(), **written}))
        return
    console = Console()
    for name, path in (("A", a), ("B", b)):
        console.print(f"{name}: {escape(str(path))}", highlight=False, soft_wrap=True)
    console.print(found)
    if plot is not None:
        console.print(f"plot: {escape(str(plot))}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune report runs/digits-001 -o digits.html")
def report(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="folder of a sweep, finished or not")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="default: SWEEP/report/index.html")
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="dotted name of your own data or augmentation in the sweep; may be repeated"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a self-contained HTML report of a sweep: result, schedules, curves, cost."""
    from results.reporting.html import write_report
    from results.reporting.sweep_folder import SweepFolder
    from search.sweeps.sample_images import samples_of
    from spaces.core.errors import RoletuneError

    sweep, images, why = SweepFolder.read(folder, own or ()), None, ""
    try:
        images = samples_of(sweep, own or ())
    except RoletuneError as error:
        why = str(error)
    path = write_report(sweep, output, images=images, no_images=why)
    if as_json:
        typer.echo(json.dumps({"report": str(path), "sweep": sweep.name, "finished": sweep.result is not None}))
        return
    partly = "" if sweep.result else "  (partial: the sweep has no result yet)"
    Console().print(f"{escape(str(path))}{partly}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune ui runs/digits-001")
def ui(
    folder: Annotated[Path | None, typer.Argument(help="folder of a sweep; default: the newest in runs/")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[
        str, typer.Option(help="address to listen on; all but loopback are open to the network")
    ] = "127.0.0.1",
) -> None:
    """Open MLflow's page on a sweep's store."""
    from results.tracking.ui import serve

    console = Console()
    page = serve(folder, host=host, port=port, say=lambda text: console.print(escape(text), soft_wrap=True))
    raise typer.Exit(page)


@app.command(epilog="Example: roletune sync runs/digits-001")
def sync(
    folder: Annotated[Path | None, typer.Argument(help="folder of a sweep; default: the newest in runs/")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store to send to; default: that of the sweep")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="drop what MLflow refuses for good, and files that are missing")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send MLflow what a sweep could not deliver while the server was away."""
    from results.tracking.sync import sync as send

    done = send(folder, tracking_uri, drop=drop)
    if as_json:
        typer.echo(json.dumps(done.to_json()))
    else:
        console = Console()
        for line in done.lines():
            console.print(escape(line), highlight=False, soft_wrap=True)
    if done.left:
        raise typer.Exit(1)


@app.command("list", epilog="Example: roletune list loss")
def list_(
    setting: Annotated[
        str | None, typer.Argument(help="one setting: operations, augment, loss, model, algorithm, …")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print a Markdown table")] = False,
    as_json: Json = False,
) -> None:
    """List the names that a sweep file can use, with their options."""
    from search.config import catalog

    chosen = catalog.settings() if setting is None else (catalog.setting(setting),)
    if markdown:
        typer.echo(catalog.markdown(), nl=False)
    elif as_json:
        typer.echo(json.dumps({each.name: {name: list(row) for name, row in each.names.items()} for each in chosen}))
    else:
        console = Console()
        for each in chosen:
            console.print(each.table())
            console.print()


def _show_effects(path: Path, plot: Path | None, as_json: bool) -> None:
    """Print the tables of effects, and plot them if asked."""
    from results.analysis.effects import EffectsReport

    report = EffectsReport.load(path)
    if plot is not None:
        from results.plots.effects import plot_effects
        from results.reporting.policy_view import check_png

        check_png(plot)
        plot_effects(report, plot)
    if as_json:
        typer.echo(json.dumps({**report.to_json(), **({} if plot is None else {"plot": str(plot)})}))
        return
    console = Console()
    for role, effects in report.roles.items():
        console.print(f"[bold]{role}[/bold]")
        console.print(effects.text_table().for_terminal())
        console.print()
    for line in [*report.describe(), *([] if plot is None else [f"plot: {plot}"])]:
        console.print(escape(line), highlight=False, soft_wrap=True)


def _refuse(rule: str, options: dict[str, Any]) -> None:
    """Raise for the first of the options that was given."""
    from spaces.core.errors import RequestError

    for option, value in options.items():
        if value is not None:
            raise RequestError(f"{option} {rule}", value=value)


def _read(kind: str, source: str, role: str, epochs: int | None, size: int | None, fill: str | None) -> Schedule:
    """Read a schedule that was made elsewhere, for the images that the options describe."""
    from spaces import ImageSpec, RequestError
    from spaces.importers import IMAGE, read_schedule

    if epochs is None:
        raise RequestError("--from must have --epochs", hint="give the epochs of the schedule")
    color = IMAGE.fill
    if fill is not None:
        try:
            color = tuple(int(part) for part in fill.split(","))
        except ValueError as error:
            raise RequestError("--fill must be R,G,B or one gray value", value=fill) from error
    image = ImageSpec(IMAGE.size if size is None else size, len(color), color)
    return read_schedule(kind, source, epochs=epochs, role=role, image=image)
