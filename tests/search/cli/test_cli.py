"""The command line: a user's mistake is one line on standard error, exit status 2, and nothing on disk."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sweep_folder import sweep_folder

from results.analysis.effects import Effect, EffectsReport, RoleEffects
from results.runlog.events import ArtifactWritten, RunStarted
from results.tracking.cursor import Cursor
from results.tracking.tracker import Tracker
from search.cli import main
from search.execution.journal import Journal
from spaces import Entry, Genome, ImageSpec, Phase, Policy, Schedule

MINIMAL = (
    "data: {name: digits, train: 40, validation: 40}\n"
    "teacher: {model: mlp, search: {algorithm: pbt}}\nstudent: {model: mlp, search: {algorithm: pbt}}\n"
)


@pytest.fixture
def roletune(sweep_file, monkeypatch, capsys, tmp_path):
    """Runs the command; returns its status, standard output and standard error."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    sweep_file(MINIMAL)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["roletune", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


def policy(path, role="student", channels=1):
    genome = Genome(Policy((Entry("Rotate", 5, 3),)))
    return Schedule((Phase(2, genome),), role, ImageSpec(8, channels, (0,) * channels)).save(path)


@pytest.mark.parametrize(
    "command",
    ["", "search", "screen", "train", "evaluate", "export", "show", "report", "diff", "ui", "sync", "doctor"],
)
def test_every_command_explains_itself(roletune, command):
    status, out, _ = roletune(*command.split(), "--help")
    assert status == 0 and "Usage" in out
    assert not command or "Example: roletune" in out


def test_a_dry_run_prints_the_resolved_sweep_and_starts_nothing(roletune, tmp_path):
    status, out, _ = roletune("search", "sweep.yaml", "--dry-run", "--set", "seed=7")
    assert status == 0 and "seed: 7" in out and "nothing was started" in out
    status, out, _ = roletune("search", "sweep.yaml", "--dry-run", "--json")
    plan = json.loads(out)
    assert plan["images"] == {"train": 40, "validation": 40, "test": 597}
    # Each role: two searches of 4 members, three full trainings, 24 epochs each; one more teacher for the search.
    assert plan["epochs_over_all_trials"] == (2 * (2 * 4 + 3) + 1) * 24
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_a_dry_run_shows_no_password(roletune):
    for more in ([], ["--json"]):
        words = ["search", "sweep.yaml", "--dry-run", "--set", "tracking.uri=http://user:s3cr3t@host:5000", *more]
        status, out, err = roletune(*words)
        assert status == 0 and "http://host:5000" in out and "s3cr3t" not in out + err


@pytest.fixture
def kept(tmp_path):
    """A sweep's folder whose journal has a run and a file that is gone, of which the store in it knows nothing."""
    folder = tmp_path / "runs" / "small-001"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text("name: small\n")
    with Journal(folder) as journal:
        journal.write(RunStarted(run="r"))
        journal.write(ArtifactWritten(run="r", path="policy.json"))
    Cursor.open(folder, "")
    return folder


def test_a_sweep_that_runs_is_not_synced(roletune, kept):
    with Journal(kept):
        status, _, err = roletune("sync", kept)
        assert status == 2 and "another process runs the sweep in" in err and err.count("\n") == 1
    status, _, err = roletune("sync", kept)
    assert status == 2 and "an MLflow store must be there" in err and err.count("\n") == 1


@pytest.mark.slow
def test_sync_says_what_it_sent_and_what_is_left(roletune, kept, tmp_path):
    Tracker.open(kept, "small").close()
    status, out, err = roletune("sync")
    store = f"sqlite:///{kept}/mlflow.db"
    assert (status, err) == (1, "")
    first, second = out.splitlines()
    assert first == f"{kept}: 1 event sent, 1 left, to {store}"
    assert second.startswith("not sent: artifact of run 'r': ") and str(kept / "policy.json") in second
    status, out, _ = roletune("sync", kept, "--drop", "--json")
    assert status == 0
    assert {key: value for key, value in json.loads(out).items() if key not in ("folder", "notes")} == {
        "store": store,
        "sent": 0,
        "left": 0,
        "dropped": 1,
    }
    status, out, _ = roletune("sync", kept)
    assert (status, out) == (0, f"{kept}: nothing is left to deliver\n")


GRID = ["show", "s.json", "--grid", "g.png", "--images"]
RANK = ["screen", "sweep.yaml", "--set"]
STUDENTS = "{kind: cutmixpick, pick_by: student}"
READ = ["export", "--epochs", "3", "-o", "out.json", "--from"]

MISTAKES = {
    "no such file": (["search", "absent.yaml"], "cannot read the sweep file absent.yaml"),
    "unknown key": (["search", "sweep.yaml", "--set", "teacher.search.epoch=1"], "did you mean 'epochs'?"),
    "unknown data": (["search", "sweep.yaml", "--set", "data.name=digit"], "did you mean 'digits'?"),
    "missing data": (["search", "sweep.yaml", "--set", "data.name=mnist"], "data.download"),
    "too much data": (["search", "sweep.yaml", "--set", "data.train=5000"], "5000"),
    "unknown model": (["search", "sweep.yaml", "--set", "student.model=resnet9"], "did you mean 'resnet8'?"),
    "no such module": (["search", "sweep.yaml", "--set", "teacher.model=nowhere:net"], "nowhere"),
    "factory raises": (["search", "sweep.yaml", "--set", "teacher.model=faulty:refuses"], "ValueError: no such layer"),
    "model does not fit": (["search", "sweep.yaml", "--set", "teacher.model=faulty:wrong_shape"], "shape (2, 10)"),
    "no weights": (["search", "sweep.yaml", "--set", "teacher.weights=w.safetensors"], "the weights file must exist"),
    "replay without file": (["train", "sweep.yaml", "--policy", "p.json"], "cannot read the policy file p.json"),
    "broken policy": (["train", "sweep.yaml", "--policy", "sweep.yaml"], "sweep.yaml must be a policy file"),
    "policy without teacher": (["train", "sweep.yaml", "--policy", "s.json"], "a student's policy must have a trained"),
    "policy twice": (
        ["train", "sweep.yaml", "--policy", "t.json", "--policy", "t.json"],
        "policies must be at most one a role",
    ),
    "policy for color": (["train", "sweep.yaml", "--policy", "rgb.json"], "images of 1 channels, got 3"),
    "newer policy": (["train", "sweep.yaml", "--policy", "new.json"], "install a newer roletune"),
    "export from nothing": (["export", "absent", "-o", "out.json"], "no folder absent"),
    "export unknown role": (["export", ".", "--role", "pupil", "-o", "out.json"], "unknown role 'pupil'"),
    "export too early": (["export", ".", "-o", "out.json"], "holds no policy for the student"),
    "epochs of a sweep": (["export", ".", "--epochs", "3", "-o", "out.json"], "--epochs must go with --from, got 3"),
    "images of a sweep": (["export", ".", "--size", "3", "-o", "out.json"], "--size must go with --from, got 3"),
    "read without epochs": (
        ["export", "--from", "pba", "s.json", "-o", "out.json"],
        "--from must have --epochs; give the epochs",
    ),
    "read from a store": ([*READ, "ray", "s.json", "--tracking-uri", "a"], "--tracking-uri must go without --from"),
    "read unknown kind": ([*READ, "pbba", "s.json"], "unknown reader 'pbba'; did you mean 'pba'?"),
    "read unknown table": ([*READ, "autoaugment", "cifar"], "did you mean 'cifar10'?"),
    "read no file": ([*READ, "pba", "absent.txt"], "cannot read the PBT log absent.txt"),
    "read another file": ([*READ, "pba", "sweep.yaml"], "sweep.yaml, line 1: a line must be JSON or a Python literal"),
    "read for no color": (
        [*READ, "pba", "s.json", "--fill", "red"],
        "--fill must be R,G,B or one gray value, got 'red'",
    ),
    "read for two channels": ([*READ, "pba", "s.json", "--fill", "1,2"], "ImageSpec.channels must be 1 or 3, got 2"),
    "rank unknown": (["screen", "sweep.yaml", "--only", "flip,cutmx"], "'cutmx'; did you mean 'cutmix'?"),
    "rank twice": (["screen", "sweep.yaml", "--only", "flip, cutmix,flip"], "augmentations to rank must differ"),
    "rank no policy": (["screen", "sweep.yaml", "--policy", "absent.json"], "cannot read the policy file absent.json"),
    "rank too few images": (
        [*RANK, "screen.precision.images=81"],
        "images must be at most 80, the images of the set, got 81",
    ),
    "rank by a student": (
        [*RANK, f"space.augment=[flip, {STUDENTS}]"],
        "(pick_by=student)'; set pick_by: t",
    ),
    "rank without weights": ([*RANK, "teacher.weights=w.safetensors"], "the weights file must exist"),
    "rank beside nothing": ([*RANK, "screen.drop=1"], "less than 1, got 1"),
    "show no file": (["show", "absent.json"], "cannot read the policy file absent.json"),
    "show no policy": (["show", "sweep.yaml"], "sweep.yaml must be a policy file"),
    "grid without images": (["show", "s.json", "--grid", "g.png"], "--images PATH"),
    "images without grid": (["show", "s.json", "--images", "."], "--grid FILE.png"),
    "grid of words": ([*GRID, "photo.png", "--epochs", "last"], "got 'last'; for example 0,10,50"),
    "grid after the end": ([*GRID, "photo.png", "--epochs", "0,2"], "epochs must be 0 to 1 for this schedule, got 2"),
    "grid of nothing": ([*GRID, "absent.png"], "no image file and no folder absent.png"),
    "grid of no image": ([*GRID, "s.json", "--plot", "p.png"], "s.json must be an image that Pillow can decode"),
    "plot as text": (["show", "s.json", "-o", "plot.txt"], "choose a name that ends in .png"),
    "plot over a photo": ([*GRID, "photo.png", "-o", "photo.png"], "photo.png must not be one of the images"),
    "diff no file": (["diff", "s.json", "absent.json"], "cannot read the policy file absent.json"),
    "diff no policy": (["diff", "sweep.yaml", "s.json"], "sweep.yaml must be a policy file"),
    "diff as text": (["diff", "s.json", "t.json", "--plot", "d.txt"], "choose a name that ends in .png"),
    "sync without sweep": (["sync"], "no sweep in"),
    "sync no folder": (["sync", "absent"], "no folder"),
    "dead server with a password": (
        ["doctor", "sweep.yaml", "--set", "tracking=http://user:s3cr3t@host"],
        "http://user:***@host",
    ),
    "page without sweep": (["ui"], "no sweep in"),
    "page of no sweep": (["ui", "."], "no MLflow store in ."),
    "nobody at the address": (["search", "sweep.yaml", "--address", "127.0.0.1:1"], "127.0.0.1:1"),
    "dead tracking server": (["doctor", "sweep.yaml", "--set", "tracking.uri=3"], "tracking.uri"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(roletune, tmp_path, mistake, monkeypatch):
    policy(tmp_path / "s.json")
    policy(tmp_path / "t.json", "teacher")
    policy(tmp_path / "rgb.json", "teacher", channels=3)
    Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    newer = (tmp_path / "s.json").read_text().replace('"version": 1', '"version": 3')
    (tmp_path / "new.json").write_text(newer)
    before = sorted(tmp_path.iterdir())
    words, line = MISTAKES[mistake]
    if mistake == "nobody at the address":
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr("ray.init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody there")))
    status, out, err = roletune(*words)
    assert status == 2, err
    assert line in err and err.startswith("roletune: ") and err.count("\n") == 1
    assert out == "" and "s3cr3t" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_export_reads_what_was_made_elsewhere(roletune, tmp_path):
    copy = ["1", "0", 1, 2, [0] * 60, [3] * 60]
    (tmp_path / "pbt_policy_1.txt").write_text(f"{copy}\n")
    status, out, err = roletune("export", "--from", "pba", "pbt_policy_1.txt", "--epochs", 6, "-o", "p.json")
    assert (status, err) == (0, "")
    assert out == "p.json: student, 6 epochs, 2 phase(s) from pbt_policy_1.txt, mean strength 0.84\n"
    schedule = Schedule.load(tmp_path / "p.json")
    assert [phase.epochs for phase in schedule.phases] == [2, 4]
    assert schedule.image == ImageSpec(32, 3, (125, 123, 114))
    words = [*READ, "autoaugment", "svhn", "--role", "teacher", "--size", 28, "--fill", 33, "--json"]
    status, out, _ = roletune(*words)
    facts = json.loads(out)
    assert status == 0 and (facts["role"], facts["epochs"], facts["table"]) == ("teacher", 3, "svhn")
    assert Schedule.load(tmp_path / facts["policy"]).image == ImageSpec(28, 1, (33,))


def test_show_prints_a_table_or_the_same_as_json(roletune, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    policy(tmp_path / "p.json")
    status, out, err = roletune("show", "p.json")
    assert (status, err) == (0, "") and "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[2].split() == ["Rotate", "▂" * 28, "0.50", "3.0", "1.50", "0"]
    assert "student: 2 epochs in 1 phase, mean strength 1.50, 8 px gray" in out
    status, out, _ = roletune("show", "p.json", "--json")
    facts = json.loads(out)
    assert status == 0 and (facts["policy"], facts["epochs"], facts["mean_strength"]) == ("p.json", 2, 1.5)
    assert facts["operations"][0]["op"] == "Rotate" and facts["operations"][0]["level"] == 3


def test_show_prints_and_plots_effects(roletune, tmp_path):
    effect = Effect("Rotate", "operation", ("off", "on"), 0.4, 0.1, 0.7, 0.99, 2.3)
    report = EffectsReport({"teacher": RoleEffects("teacher", "accuracy", 24, 0.5, (effect,), {"Rotate": "on"})})
    report.save(tmp_path / "effects.json")
    status, out, err = roletune("show", "effects.json", "-o", "new/effects.png")
    assert (status, err) == (0, "") and out.splitlines()[0] == "teacher"
    assert out.splitlines()[3].replace("│", " ").split() == ["Rotate", "+0.400", "+0.100", "…", "+0.700", "0.990", "on"]
    assert out.endswith("noise of one trial 0.5\nplot: new/effects.png\n")
    assert (tmp_path / "new" / "effects.png").is_file()
    status, out, _ = roletune("show", "effects.json", "--json")
    assert status == 0 and json.loads(out) == report.to_json()
    status, _, err = roletune("show", "effects.json", "--epochs", "0,1")
    assert status == 2 and "--epochs must go with a policy file, got '0,1'" in err
    (tmp_path / "new.json").write_text('{"format": "roletune.effects", "version": 9}')
    status, _, err = roletune("show", "new.json")
    assert status == 2 and "the version of effects must be 1, got 9; update roletune" in err


def test_show_draws_a_plot_and_a_grid(roletune, tmp_path):
    policy(tmp_path / "p.json")
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (20, 10), "red").save(tmp_path / "photos" / name)
    words = ["show", "p.json", "-o", "new/plot.png", "--grid", "grid.png", "--images", "photos"]
    status, out, err = roletune(*words, "--images", "photos/a.png", "--epochs", "0,1", "--rows", "2", "--draws", "3")
    assert (status, err) == (0, "") and out.endswith("plot: new/plot.png\ngrid: grid.png\n")
    for name, least in (("new/plot.png", (900, 250)), ("grid.png", (400, 1000))):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG" and picture.width > least[0] and picture.height > least[1]
    status, out, _ = roletune(*words, "--json")
    assert status == 0 and json.loads(out)["grid"] == "grid.png"


def test_diff_says_what_differs_and_draws_it(roletune, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    policy(tmp_path / "a.json")
    Schedule((Phase(4, Genome()),), "teacher", ImageSpec(8, 1, (0,))).save(tmp_path / "b.json")
    status, out, err = roletune("diff", "a.json", "b.json", "--plot", "new/d.png")
    assert (status, err) == (0, "") and "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    assert out.startswith("A: a.json\nB: b.json\nA is stronger by 1.50 on average; 1 operation differs: Rotate.\n")
    assert "role: A student; B teacher\n" in out and out.endswith("plot: new/d.png\n")
    with Image.open(tmp_path / "new" / "d.png") as picture:
        assert picture.format == "PNG" and picture.width > 900
    status, out, _ = roletune("diff", "b.json", "b.json", "--json")
    facts = json.loads(out)
    assert status == 0 and facts["same"] and (facts["a"], facts["b"], facts["operations"]) == ("b.json", "b.json", [])


def test_a_wrong_option_is_a_mistake_too(roletune):
    assert roletune("search", "sweep.yaml", "--fast")[0] == 2
    assert roletune("serach", "sweep.yaml")[0] == 2


SCREEN = """
data: {name: digits, train: 60, validation: 60}
teacher: {model: mlp, recipe: {lr: 0.05, batch_size: 20}, search: {epochs: 5}}
screen: {precision: {images: 30, means: 8}}
"""


@pytest.fixture
def screening(sweep_file, tmp_path_factory):
    """A sweep file for `screen`, on the one store that all slow tests of it share, since a new one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.getbasetemp() / 'screening.db'}"
    sweep_file(f"{SCREEN}tracking: {{uri: '{uri}'}}\n")
    return uri


@pytest.mark.slow
def test_screen_ranks_with_a_teacher_of_its_own(roletune, screening, tmp_path):
    from mlflow.tracking import MlflowClient

    status, out, err = roletune("screen", "sweep.yaml", "--only", "cutout,cutmix,cutmixpick", "--json")
    result = json.loads(out)
    assert status == 0 and "screening" in err
    by_label = {row["label"]: row for row in result["rows"]}
    assert set(by_label) == {"identity", "cutout", "cutmix", "cutmixpick"}
    assert (by_label["identity"]["ratio"], result["images"], result["means"], result["dropped"]) == (1, 30, 8, [])
    ratios = [row["ratio"] for row in result["rows"] if row["informative"]]
    assert ratios == sorted(ratios) and by_label["identity"]["agreement"] > 0.6
    folder = tmp_path / result["folder"]
    assert folder.name == "digits-screen-001" and (folder / "models" / "teacher.safetensors").is_file()
    assert json.loads((folder / "screening.json").read_text()) == result

    client = MlflowClient(screening)
    experiment = client.get_experiment_by_name("digits").experiment_id
    (run,) = client.search_runs([experiment], "tags.stage = 'screening'")
    assert (run.info.status, run.info.run_name, run.data.tags["folder"]) == ("FINISHED", folder.name, folder.name)
    for label, row in by_label.items():
        for name in ("t_stddev", "ratio", "agreement", "entropy"):
            assert run.data.metrics[f"screen/{label}/{name}"] == pytest.approx(row[name])
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"sweep.yaml", "screening.json", "screening.md", "screening.png"}

    # With the same teacher given, a person reads the same figures, and the policy's beside them.
    policy(tmp_path / "p.json")
    weights = f"teacher.weights={folder}/models/teacher.safetensors"
    words = ["--only", "cutout,cutmix,cutmixpick", "--policy", "p.json", "--set", weights]
    status, out, err = roletune("screen", "sweep.yaml", *words)
    table = [line for line in out.splitlines() if "±" in line and "│" in line]
    assert status == 0 and "\x1b" not in out and len(table) == 5 and max(map(len, table)) <= 80
    shown = {line.split()[0]: [cell.strip() for cell in line.split("│")] for line in table}
    assert shown["cutmix"][2].split()[0] == f"{by_label['cutmix']['ratio']:.3f}"
    assert any(name.startswith("policy(policy=#") for name in shown)
    assert "8 means of 60 outputs (30 images, drawn with replacement)" in out
    assert "runs/digits-screen-002/report/screening.png" in out
    assert not (tmp_path / "runs" / "digits-screen-002" / "models").exists()


@pytest.mark.slow
def test_what_can_never_be_placed_is_refused_at_once(roletune, marks, tmp_path):
    status, _, err = roletune("search", "sweep.yaml", "--set", "resources.gpus_per_trial=1")
    assert status == 2 and "resources.gpus_per_trial must be <= 0, the GPUs of the largest node, got 1" in err
    status, _, err = roletune("search", "sweep.yaml", "--set", "resources.cpus_per_trial=64")
    assert (
        status == 2
        and "resources.cpus_per_trial must be <= 2, the CPUs of the largest node, beside 0 GPU, got 64" in err
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_doctor_looks_at_everything_and_says_what_is_wrong(roletune, marks, tmp_path):
    status, out, _ = roletune("doctor", "sweep.yaml", "--json")
    checks = json.loads(out)
    assert status == 0 and all(check["ok"] for check in checks)
    assert {"packages", "data", "storage", "tracking", "cluster"} <= {check["name"] for check in checks}
    assert "2 trials at once" in out
    status, out, _ = roletune("doctor", "sweep.yaml", "--json", "--set", "resources.gpus_per_trial=1")
    assert status == 1
    assert [check["name"] for check in json.loads(out) if not check["ok"]] == ["cluster"]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


def test_a_report_is_one_file_and_says_where_it_lies(roletune, tmp_path):
    folder = sweep_folder(tmp_path / "runs" / "digits-001")
    status, out, _ = roletune("report", "runs/digits-001")
    assert (status, out) == (0, "runs/digits-001/report/index.html\n")
    page = (folder / "report" / "index.html").read_text()
    assert page.count("at epoch 2") == 12, "six images of the sweep's own data, for each role"

    (folder / "result.json").unlink()
    status, out, _ = roletune("report", "runs/digits-001", "-o", "p.html")
    assert (status, out) == (0, "p.html  (partial: the sweep has no result yet)\n")
    status, out, _ = roletune("report", "runs/digits-001", "-o", "p.html", "--json")
    assert json.loads(out) == {"report": "p.html", "sweep": "digits-001", "finished": False}


@pytest.mark.parametrize(
    ("name", "why"),
    [("cifar10", "cifar10"), ("mine:data", "data of your own must be named: mine:data; add --own mine:data")],
)
def test_a_report_on_data_that_are_not_here_goes_without_images(roletune, tmp_path, name, why):
    folder = sweep_folder(tmp_path / "digits-001")
    settings = (folder / "sweep.yaml").read_text().replace("data: {name: digits,", f"data: {{name: {name!r},")
    (folder / "sweep.yaml").write_text(settings)
    assert roletune("report", "digits-001")[0] == 0
    page = (folder / "report" / "index.html").read_text()
    assert "No images are shown: " in page and why in page.split("No images are shown: ")[1][:200]


def test_a_folder_of_something_else_has_no_report(roletune, tmp_path):
    (tmp_path / "photos").mkdir()
    status, out, err = roletune("report", "photos")
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "photos is not a sweep's folder: it has no sweep.yaml; give a sweep's folder" in err


def imported(code, *names):
    """Those of `names` that a new interpreter has imported after `code`."""
    code += f"\nimport sys\nprint(sorted({set(names)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


def test_help_imports_neither_ray_nor_torch_nor_mlflow():
    code = (
        "import sys; sys.argv = ['roletune', '--help']\n"
        "import search.cli\n"
        "try: search.cli.main()\n"
        "except SystemExit: pass"
    )
    heavy = ("ray", "torch", "mlflow", "pandas", "numpy", "pydantic", "yaml", "matplotlib", "PIL", "sklearn")
    assert imported(code, *heavy) == []


def test_a_search_imports_nothing_before_it_starts_that_it_needs_at_its_end_or_never(tmp_path):
    """Seconds of the driver's start: pictures, other searches' tools, and PyTorch's compiler."""
    settings = "{data: {name: digits}, teacher: {model: cnn}, student: {model: mlp}}"
    (tmp_path / "sweep.yaml").write_text(settings)
    code = (
        "import search.sweeps.runner\n"
        "from search.config.schema import SweepConfig\n"
        "from search.sweeps.plan import SweepPlan\n"
        f"SweepPlan.resolve(SweepConfig.load({str(tmp_path / 'sweep.yaml')!r}))"
    )
    late = ("matplotlib", "scipy", "sklearn", "optuna", "jinja2", "mlflow", "torchvision", "torch._dynamo", "sympy")
    assert imported(code, *late) == []
