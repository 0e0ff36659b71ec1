"""The command line: a user's mistake is one line on standard error, exit status 2, and nothing on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from search.cli import main
from spaces import Entry, Genome, ImageSpec, Phase, Schedule

MINIMAL = "data: {name: digits, train: 40, validation: 40}\nteacher: {model: mlp}\nstudent: {model: mlp}\n"


@pytest.fixture
def roletune(sweep_file, monkeypatch, capsys, tmp_path):
    """Runs the command; returns its status, standard output and standard error."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sweep_file(MINIMAL)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["roletune", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


def policy(path, role="student", channels=1):
    genome = Genome((Entry("Rotate", 5, 3),))
    return Schedule((Phase(2, genome),), role, ImageSpec(8, channels, (0,) * channels)).save(path)


@pytest.mark.parametrize("command", ["", "search", "train", "export", "ui", "doctor"])
def test_every_command_explains_itself(roletune, command):
    status, out, _ = roletune(*command.split(), "--help")
    assert status == 0 and "Usage" in out
    assert not command or "Example: roletune" in out


def test_a_dry_run_prints_the_resolved_sweep_and_starts_nothing(roletune, tmp_path):
    status, out, _ = roletune("search", "sweep.yaml", "--dry-run", "--set", "search.seed=7")
    assert status == 0 and "seed: 7" in out and "nothing was started" in out
    status, out, _ = roletune("search", "sweep.yaml", "--dry-run", "--json")
    plan = json.loads(out)
    assert plan["images"] == {"train": 40, "validation": 40, "test": 597}
    # Each role: two searches of 4 members, three full trainings, 24 epochs each.
    assert plan["epochs_over_all_trials"] == 2 * (2 * 4 + 3) * 24
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


MISTAKES = {
    "no such file": (["search", "absent.yaml"], "cannot read the sweep file absent.yaml"),
    "unknown key": (["search", "sweep.yaml", "--set", "teacher.stage.epoch=1"], "did you mean 'epochs'?"),
    "unknown data": (["search", "sweep.yaml", "--set", "data.name=digit"], "did you mean 'digits'?"),
    "missing data": (["search", "sweep.yaml", "--set", "data.name=mnist"], "data.download"),
    "too much data": (["search", "sweep.yaml", "--set", "data.train=5000"], "5000"),
    "unknown model": (["search", "sweep.yaml", "--set", "student.model=resnet9"], "did you mean 'resnet8'?"),
    "no such module": (["search", "sweep.yaml", "--set", "teacher.model=nowhere:net"], "nowhere"),
    "factory raises": (["search", "sweep.yaml", "--set", "teacher.model=faulty:refuses"], "ValueError: no such layer"),
    "model does not fit": (["search", "sweep.yaml", "--set", "teacher.model=faulty:wrong_shape"], "shape (2, 10)"),
    "no weights": (["search", "sweep.yaml", "--set", "teacher.weights=w.safetensors"], "no weights file"),
    "replay without file": (["train", "sweep.yaml", "--policy", "p.json"], "cannot read the policy file p.json"),
    "broken policy": (["train", "sweep.yaml", "--policy", "sweep.yaml"], "no policy file"),
    "policy without teacher": (["train", "sweep.yaml", "--policy", "s.json"], "a student's policy needs a trained"),
    "policy twice": (["train", "sweep.yaml", "--policy", "t.json", "--policy", "t.json"], "at most one policy a role"),
    "policy for colour": (["train", "sweep.yaml", "--policy", "rgb.json"], "3 channels"),
    "newer policy": (["train", "sweep.yaml", "--policy", "new.json"], "install a newer roletune"),
    "export from nothing": (["export", "absent", "-o", "out.json"], "no folder absent"),
    "export unknown role": (["export", ".", "--role", "pupil", "-o", "out.json"], "unknown role 'pupil'"),
    "export too early": (["export", ".", "-o", "out.json"], "holds no policy for the student"),
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
    newer = (tmp_path / "s.json").read_text().replace('"version": 1', '"version": 2')
    (tmp_path / "new.json").write_text(newer)
    before = sorted(tmp_path.iterdir())
    words, line = MISTAKES[mistake]
    if mistake == "nobody at the address":
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        monkeypatch.setattr("ray.init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody there")))
    status, out, err = roletune(*words)
    assert status == 2, err
    assert line in err and err.startswith("roletune: ") and err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_wrong_option_is_a_mistake_too(roletune):
    assert roletune("search", "sweep.yaml", "--fast")[0] == 2
    assert roletune("serach", "sweep.yaml")[0] == 2


@pytest.mark.slow
def test_what_can_never_be_placed_is_refused_at_once(roletune, marks, tmp_path):
    status, _, err = roletune("search", "sweep.yaml", "--set", "resources.gpus_per_trial=1")
    assert status == 2 and "a trial asks for 1 GPU and no node has more than 0" in err
    status, _, err = roletune("search", "sweep.yaml", "--set", "resources.cpus_per_trial=64")
    assert status == 2 and "a trial asks for 64 CPUs and no node has more than 2" in err
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


def test_help_imports_neither_ray_nor_torch_nor_mlflow():
    import subprocess

    code = (
        "import sys; sys.argv = ['roletune', '--help']\n"
        "import search.cli\n"
        "try: search.cli.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'ray', 'torch', 'mlflow', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:]
