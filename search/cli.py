"""The command line: each command is one call in Python, told in words, with an exit status.

0 done, 1 the work failed, 2 the request was wrong, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

if TYPE_CHECKING:
    from results.evaluation import Evaluation
    from results.screening import ScreeningResult
    from results.summary import SweepResult
    from search.config import SweepConfig
    from spaces import Schedule


class _Commands(TyperGroup):
    """Turns what a command raises into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; search --resume and sync go on from here, export takes what a search has found", 130)
        except (ValueError, RuntimeError) as error:
            from spaces.errors import RequestError, WorkError  # `--help` should not wait for torch

            if isinstance(error, RequestError):
                _fail(str(error), 2)
            if isinstance(error, WorkError):
                _fail(str(error), 1)
            raise


app = typer.Typer(
    cls=_Commands,
    help="What should each role see? Searches one augmentation schedule for the teacher and one for the student.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="the sweep file")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override one value; may be repeated")
]
Own = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="augmentation of yours that the policy may hold; repeatable")
]
Address = Annotated[str | None, typer.Option(help="of a Ray cluster; default: RAY_ADDRESS, else this machine")]
Storage = Annotated[str | None, typer.Option(help="folder that the sweep's folder is made in")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


@app.command(epilog="Example: roletune search examples/digits.yaml --set student.stage.epochs=12")
def search(
    sweep: SweepFile,
    set_: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the resolved sweep and stop")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the newest sweep of this name")] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Run a sweep: search, train in full, test."""
    config = _config(sweep, set_, storage)
    if dry_run:
        _print_plan(config, as_json)
        return
    from search.sweep import run

    console = Console(stderr=as_json)
    _show(run(config, resume=resume, address=address, console=console), as_json)


@app.command(epilog="Example: roletune screen examples/digits.yaml --only identity,cutmix,cutmixpick")
def screen(
    sweep: SweepFile,
    only: Annotated[str | None, typer.Option(metavar="A,B", help="rank these alone")] = None,
    policy: Annotated[list[Path] | None, typer.Option(help="rank a policy file's last phase too")] = None,
    set_: Set = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Rank augmentations by T. stddev, with the teacher alone."""
    config = _config(sweep, set_, storage)
    from search.screen import screen as rank
    from spaces import Schedule

    schedules = [Schedule.load(path, config.space.own) for path in policy or ()]
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    result = rank(config, names, schedules, console=Console(stderr=as_json))
    console = _show_table(result, as_json)
    console.print(f"picture          {result.folder}/report/screening.png", highlight=False, soft_wrap=True)
    console.print(f"every figure     roletune ui {result.folder}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune train examples/digits.yaml --policy runs/digits-001/policy.teacher.json")
def train(
    sweep: SweepFile,
    policy: Annotated[list[Path], typer.Option(help="policy file to replay; one a role")],
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Replay a policy in full, stretched to the epochs that the sweep asks for."""
    config = _config(sweep, set_, storage)
    from search.sweep import replay
    from spaces import Schedule

    schedules = [Schedule.load(path, config.space.own) for path in policy]
    _show(replay(config, schedules, address=address, console=Console(stderr=as_json)), as_json)


@app.command(
    epilog="Example: roletune evaluate runs/digits-001\n\n"
    "Example: roletune evaluate sweep.yaml --policy a.json --policy b.json --baseline none,trivialaugment"
)
def evaluate(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="a sweep's folder, or a sweep file with --policy")],
    policy: Annotated[list[Path] | None, typer.Option(help="policy file; may be repeated")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="A,B", help="what to compare with; default: the usual ones")
    ] = None,
    seeds: Annotated[int, typer.Option(help="trainings of each arm, all of them from the same seeds")] = 5,
    role: Annotated[str, typer.Option(help="whose policy, of a sweep's folder")] = "student",
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Is a policy better than TrivialAugment? Train both alike, test once, compare."""
    folder = sweep if sweep.is_dir() else None
    config = _config(sweep / "sweep.yaml" if folder else sweep, set_, storage)
    from search.evaluate import evaluate as compare
    from search.evaluate import named, with_teacher
    from spaces import Schedule

    files = named(folder, policy or (), role)
    schedules = {name: Schedule.load(path, config.space.own) for name, path in files.items()}
    if any(schedule.role == "student" for schedule in schedules.values()):
        config = with_teacher(config, [path.parent for path in files.values()])
    names = None if baseline is None else [name.strip() for name in baseline.split(",") if name.strip()]
    told = Console(stderr=as_json)
    result = compare(config, schedules, baselines=names, seeds=seeds, home=folder, address=address, console=told)
    console = _show_table(result, as_json)
    picture = f"{result.folder}/report/evaluation.{result.role}.png"
    console.print(f"\npicture          {picture}", highlight=False, soft_wrap=True)
    page = f"roletune ui {result.folder}" if (Path(result.folder) / "mlflow.db").is_file() else result.tracking_uri
    console.print(f"every curve      {page}", highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: roletune export runs/digits-001 --role student -o policy.json\n\n"
    "Example: roletune export --from pba rcifar10_16_wrn.txt --epochs 200 -o policy.json\n\n"
    "Example: roletune export --from autoaugment cifar10 --epochs 200 -o policy.json"
)
def export(
    run: Annotated[
        str, typer.Argument(help="a sweep's folder, or the id of its MLflow run; with --from: the file, or the table")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="P.json", help="where to write")],
    role: Annotated[str, typer.Option(help="teacher or student")] = "student",
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store that the run id is in; default: MLFLOW_TRACKING_URI")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--from", metavar="KIND", help="read what was made elsewhere: pba, ray, autoaugment"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="with --from: how many epochs the schedule covers")] = None,
    size: Annotated[int | None, typer.Option(help="with --from: side of the images in px; default: 32")] = None,
    fill: Annotated[
        str | None,
        typer.Option(metavar="R,G,B", help="with --from: the images' mean colour, one number for grey images"),
    ] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Take the best policy out of a sweep, finished or not; or, with --from, one that was made elsewhere."""
    if kind is None:
        _refuse("goes with --from", {"--epochs": epochs, "--size": size, "--fill": fill})
        from results.export import export as take

        schedule = take(run, role, tracking_uri, own or ())
    else:
        _refuse("goes without --from", {"--tracking-uri": tracking_uri})
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


@app.command(epilog="Example: roletune show policy.json --grid grid.png --images photos --epochs 0,10,50")
def show(
    policy: Annotated[Path, typer.Argument(metavar="P.json", help="the policy file")],
    plot: Annotated[
        Path | None, typer.Option("--plot", "-o", metavar="FILE.png", help="draw the strengths over the epochs")
    ] = None,
    grid: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw augmented images of yours")] = None,
    images: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="image, or folder of images; may be repeated")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="0,10,50", help="that the grid shows; default: the last of each quarter")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="images at most; of more, some that are spread over all")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="augmented images of each image and epoch")] = 2,
    seed: Annotated[int, typer.Option(help="of the grid's random numbers")] = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Look at a policy: a table, a plot, a grid of augmented images."""
    from results.show import parse_epochs
    from results.show import show as look
    from spaces import Schedule

    chosen = None if epochs is None else parse_epochs(epochs)
    schedule = Schedule.load(policy, own or ())
    seen = look(schedule, plot=plot, grid=grid, images=images or (), epochs=chosen, rows=rows, draws=draws, seed=seed)
    written = {kind: str(path) for kind, path in (("plot", plot), ("grid", grid)) if path is not None}
    if as_json:
        typer.echo(json.dumps({"policy": str(policy), **seen.to_json(), **written}))
        return
    console = Console()
    console.print(seen)
    for kind, path in written.items():
        console.print(f"{kind}: {escape(path)}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune report runs/digits-001 -o digits.html")
def report(
    folder: Annotated[Path, typer.Argument(metavar="SWEEP", help="a sweep's folder, finished or not")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="default: SWEEP/report/index.html")
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="data or augmentation of yours that the sweep names; repeatable"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page on a sweep: the answer, the schedules, the curves, the cost."""
    from results.folder import Folder
    from results.report import write
    from search.samples import samples_of
    from spaces.errors import RoletuneError

    sweep, images, why = Folder.read(folder, own or ()), None, ""
    try:
        images = samples_of(sweep, own or ())
    except RoletuneError as error:
        why = str(error)
    path = write(sweep, output, images=images, no_images=why)
    if as_json:
        typer.echo(json.dumps({"report": str(path), "sweep": sweep.name, "finished": sweep.result is not None}))
        return
    partly = "" if sweep.result else "  (partial: the sweep has no result yet)"
    Console().print(f"{escape(str(path))}{partly}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune diff runs/digits-001/policy.teacher.json runs/digits-001/policy.student.json")
def diff(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="a policy file")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="another one")],
    plot: Annotated[
        Path | None, typer.Option("--plot", "-o", metavar="FILE.png", help="draw both, and A's strength less B's")
    ] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Say what two policies do differently, operation by operation, epoch by epoch."""
    from results.difference import difference
    from spaces import Schedule

    if plot is not None:
        from results.show import check_png

        check_png(plot)
    found = difference(Schedule.load(a, own or ()), Schedule.load(b, own or ()))
    if plot is not None:
        from results.plots import plot_difference

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


@app.command(epilog="Example: roletune ui runs/digits-001")
def ui(
    folder: Annotated[Path | None, typer.Argument(help="a sweep's folder; default: the newest in runs/")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="anything but loopback is open to the network")] = "127.0.0.1",
) -> None:
    """Open MLflow's own page on a sweep's store."""
    from results.ui import serve

    console = Console()
    page = serve(folder, host=host, port=port, say=lambda text: console.print(escape(text), soft_wrap=True))
    raise typer.Exit(page)


@app.command(epilog="Example: roletune sync runs/digits-001")
def sync(
    folder: Annotated[Path | None, typer.Argument(help="a sweep's folder; default: the newest in runs/")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store to send to; default: the one that the sweep was tracked in")
    ] = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="give up what MLflow refuses for good, and files that are gone")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what a sweep could not tell MLflow while its server was away."""
    from results.sync import sync as send

    done = send(folder, tracking_uri, drop=drop)
    if as_json:
        typer.echo(json.dumps(done.to_json()))
    else:
        console = Console()
        for line in done.lines():
            console.print(escape(line), highlight=False, soft_wrap=True)
    if done.left:
        raise typer.Exit(1)


@app.command(epilog="Example: roletune doctor examples/digits.yaml")
def doctor(
    sweep: SweepFile,
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say what this machine or cluster offers, and whether the sweep can run on it."""
    config = _config(sweep, set_, storage)
    from search.doctor import examine

    checks = examine(config, address)
    if as_json:
        typer.echo(json.dumps([vars(check) for check in checks]))
    else:
        console = Console()
        for check in checks:
            mark = "[green]ok[/green]  " if check.ok else "[red]no[/red]  "
            console.print(f"{mark}{check.name:<10} {check.finding}", highlight=False, soft_wrap=True)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command("list", epilog="Example: roletune list loss")
def list_(
    setting: Annotated[
        str | None, typer.Argument(help="one setting alone: operations, augment, loss, model, …")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="the README's table")] = False,
    as_json: Json = False,
) -> None:
    """Say what can be chosen, by name, and what each takes."""
    from search import catalogue

    chosen = catalogue.settings() if setting is None else (catalogue.setting(setting),)
    if markdown:
        typer.echo(catalogue.markdown(), nl=False)
    elif as_json:
        typer.echo(json.dumps({each.name: {name: list(told) for name, told in each.names.items()} for each in chosen}))
    else:
        console = Console()
        for each in chosen:
            console.print(each.table())
            console.print()


def main() -> None:
    """Run a command; a user's mistake is one line, never a traceback."""
    # A user's own models lie where they work, and the command's script would hide that folder.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    app()


def _fail(line: str, status: int) -> NoReturn:
    Console(stderr=True).print(f"[red]roletune:[/red] {escape(line)}", highlight=False, soft_wrap=True)
    sys.exit(status)


def _config(path: Path, overrides: list[str] | None, storage: str | None) -> SweepConfig:
    from search.config import SweepConfig

    extra = [f"storage={json.dumps(storage)}"] if storage is not None else []
    return SweepConfig.load(path, [*(overrides or []), *extra])


def _refuse(rule: str, options: dict[str, Any]) -> None:
    """Refuse those of the options that were given."""
    from spaces.errors import RequestError

    for option, value in options.items():
        if value is not None:
            raise RequestError(f"{option} {rule}", got=value)


def _read(kind: str, source: str, role: str, epochs: int | None, size: int | None, fill: str | None) -> Schedule:
    """The schedule that was made elsewhere, for the images that the options describe."""
    from spaces import ImageSpec, RequestError
    from spaces.readers import IMAGE, read_schedule

    if epochs is None:
        raise RequestError("--from needs --epochs", mend="say how many epochs the schedule covers")
    colour = IMAGE.fill
    if fill is not None:
        try:
            colour = tuple(int(part) for part in fill.split(","))
        except ValueError as error:
            raise RequestError("--fill is R,G,B or one grey", got=fill) from error
    image = ImageSpec(IMAGE.size if size is None else size, len(colour), colour)
    return read_schedule(kind, source, epochs=epochs, role=role, image=image)


def _print_plan(config: SweepConfig, as_json: bool) -> None:
    from search.plan import checked_data, planned_epochs

    data = checked_data(config)
    plan: dict[str, Any] = {
        "sweep": json.loads(config.model_dump_json(by_alias=True)),
        "images": {part: len(getattr(data, part)) for part in ("train", "validation", "test")},
        "epochs_over_all_trials": planned_epochs(config),
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    counts = ", ".join(f"{count} {part}" for part, count in plan["images"].items())
    typer.echo(config.to_yaml())
    typer.echo(f"# images: {counts}\n# epochs over all trials: {plan['epochs_over_all_trials']}\n# nothing was started")


def _show_table(result: SweepResult | ScreeningResult | Evaluation, as_json: bool) -> Console:
    """Print the table and what is to be said of it; with `--json` one object, and nothing of what follows."""
    if as_json:
        typer.echo(json.dumps(result.to_json()))
        return Console(quiet=True)
    console = Console()
    console.print()
    console.print(result.table())
    console.print()
    for note in result.notes():
        console.print(escape(note), highlight=False, soft_wrap=True)
    return console


def _show(result: SweepResult, as_json: bool) -> None:
    console = _show_table(result, as_json)
    if result.notes():
        console.print()
    for role in result.roles:
        if role.policy_file:
            console.print(f"{role.role}'s policy   {role.policy_file}", highlight=False, soft_wrap=True)
    drawn = Path(result.report) / "index.html"
    console.print(f"report           {drawn if drawn.is_file() else result.report}", highlight=False, soft_wrap=True)
    page = f"roletune ui {result.folder}" if (Path(result.folder) / "mlflow.db").is_file() else result.tracking_uri
    console.print(f"every curve      {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
