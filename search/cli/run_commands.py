"""Commands that train, and `doctor`, which checks that they can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from search.cli.application import app
from search.cli.options import Address, Json, Set, Storage, SweepFile, read_config, show_table

if TYPE_CHECKING:
    from results.analysis.summary import SweepResult
    from search.config.schema import SweepConfig


@app.command(epilog="Example: roletune search examples/digits.yaml --set student.search.epochs=12")
def search(
    sweep: SweepFile,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the resolved sweep file, and start nothing")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the newest sweep of this name")] = False,
    force: Annotated[bool, typer.Option("--force", help="search even where headroom finds nothing to gain")] = False,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Run a sweep: search, confirmation, final training, test."""
    config = read_config(sweep, set_, storage)
    if dry_run:
        _print_plan(config, as_json)
        return
    from search.execution.cluster import connected

    with connected(address):  # Ray's workers start while this process imports the rest
        from search.sweeps.runner import run

        console = Console(stderr=as_json)
        _show(run(config, resume=resume, force=force, address=address, console=console), as_json)


@app.command(epilog="Example: roletune screen examples/digits.yaml --only identity,cutmix,cutmixpick")
def screen(
    sweep: SweepFile,
    only: Annotated[
        str | None, typer.Option(metavar="A,B", help="names to rank; default: space.augment, or all")
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="policy file whose last phase is ranked too; may be repeated")
    ] = None,
    set_: Set = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Rank augmentations by T. stddev with the teacher alone."""
    config = read_config(sweep, set_, storage)
    from search.sweeps.screening import screen as rank
    from spaces import Schedule

    schedules = [Schedule.load(path, config.space.custom_names) for path in policy or ()]
    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    result = rank(config, names, schedules, console=Console(stderr=as_json))
    console = show_table(result, as_json)
    console.print(f"picture          {result.folder}/report/screening.png", highlight=False, soft_wrap=True)
    console.print(f"every figure     roletune ui {result.folder}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune train examples/digits.yaml --policy runs/digits-001/policy.teacher.json")
def train(
    sweep: SweepFile,
    policy: Annotated[list[Path], typer.Option(help="policy file to train with; at most one a role")],
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Train with a policy, stretched to the epochs of the final training."""
    config = read_config(sweep, set_, storage)
    from search.sweeps.runner import replay
    from spaces import Schedule

    schedules = [Schedule.load(path, config.space.custom_names) for path in policy]
    _show(replay(config, schedules, address=address, console=Console(stderr=as_json)), as_json)


@app.command(
    epilog="Example: roletune evaluate runs/digits-001\n\n"
    "Example: roletune evaluate sweep.yaml --policy a.json --policy b.json --baseline none,trivialaugment"
)
def evaluate(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="folder of a sweep, or a sweep file with --policy")],
    policy: Annotated[list[Path] | None, typer.Option(help="policy file to evaluate; may be repeated")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="A,B", help="baselines to compare with; default: the usual ones")
    ] = None,
    seeds: Annotated[int, typer.Option(help="trainings of each arm, from the same seeds")] = 5,
    role: Annotated[str, typer.Option(help="role whose policy is taken from the sweep's folder")] = "student",
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Is a policy better than TrivialAugment? Train both alike, test once, compare."""
    folder = sweep if sweep.is_dir() else None
    config = read_config(sweep / "sweep.yaml" if folder else sweep, set_, storage)
    from search.sweeps.evaluation import evaluate as compare
    from search.sweeps.evaluation import named_policies, with_teacher
    from spaces import Schedule

    files = named_policies(folder, policy or (), role)
    schedules = {name: Schedule.load(path, config.space.custom_names) for name, path in files.items()}
    if any(schedule.role == "student" for schedule in schedules.values()):
        config = with_teacher(config, [path.parent for path in files.values()])
    names = None if baseline is None else [name.strip() for name in baseline.split(",") if name.strip()]
    result = compare(
        config, schedules, baselines=names, seeds=seeds, home=folder, address=address, console=Console(stderr=as_json)
    )
    console = show_table(result, as_json)
    picture = f"{result.folder}/report/evaluation.{result.role}.png"
    console.print(f"\npicture          {picture}", highlight=False, soft_wrap=True)
    page = f"roletune ui {result.folder}" if (Path(result.folder) / "mlflow.db").is_file() else result.tracking_uri
    console.print(f"every curve      {page}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: roletune doctor examples/digits.yaml")
def doctor(
    sweep: SweepFile,
    set_: Set = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Check that a sweep can run on this machine or cluster."""
    config = read_config(sweep, set_, storage)
    from search.sweeps.doctor import examine

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


def _print_plan(config: SweepConfig, as_json: bool) -> None:
    from search.sweeps.plan import SweepPlan

    resolved = SweepPlan.resolve(config)
    plan: dict[str, Any] = {
        "sweep": json.loads(config.model_dump_json(by_alias=True)),
        "images": {part: len(getattr(resolved.data, part)) for part in ("train", "validation", "test")},
        "epochs_over_all_trials": resolved.total_epochs,
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    counts = ", ".join(f"{count} {part}" for part, count in plan["images"].items())
    typer.echo(config.to_yaml())
    typer.echo(f"# images: {counts}\n# epochs over all trials: {plan['epochs_over_all_trials']}\n# nothing was started")


def _show(result: SweepResult, as_json: bool) -> None:
    console = show_table(result, as_json)
    if result.notes():
        console.print()
    for role in result.roles:
        if role.policy_file:
            console.print(f"{role.role}'s policy   {role.policy_file}", highlight=False, soft_wrap=True)
    effects = Path(result.report) / "effects.png"
    if effects.is_file():
        console.print(f"effects by role  {effects}", highlight=False, soft_wrap=True)
    drawn = Path(result.report) / "index.html"
    console.print(f"report           {drawn if drawn.is_file() else result.report}", highlight=False, soft_wrap=True)
    page = f"roletune ui {result.folder}" if (Path(result.folder) / "mlflow.db").is_file() else result.tracking_uri
    console.print(f"every curve      {page}", highlight=False, soft_wrap=True)
