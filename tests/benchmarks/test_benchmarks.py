"""What benchmarks write holds to one schema, and what they measure is what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats

import benchmarks
from benchmarks.augmentation.augment import ratios
from benchmarks.augmentation.cases import FILL, Case, photographs
from benchmarks.augmentation.lean_pillow import two_operations, variants
from benchmarks.augmentation.peers import peers
from benchmarks.augmentation.roletune_cpu import policies, two_always
from benchmarks.common import record
from benchmarks.common.timing import interleaved, spread
from benchmarks.methods import hard_corrupted, projection, role_wise
from benchmarks.training.naive_loop import Pictures, distillation, naive
from benchmarks.training.step import digits_task, learner, shaped_task, strong_genome
from benchmarks.training.step_parts import PARTS, apart, watch
from results.analysis.statistics import holm
from spaces import OPERATIONS, Parameters, apply
from spaces.core.seeding import seeded_generator
from spaces.operations import LEVELS
from trainables.data import TensorImages
from trainables.losses import kd_loss
from trainables.quantization import Bits

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
RESULTS = sorted((FOLDER / "results").glob("*.json"))
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8"))
SCHEMA = json.loads((FOLDER / "common" / "results.schema.json").read_text("utf-8"))
SUMMARIES = {
    branch["if"]["properties"]["name"]["const"]: branch["then"]["properties"]["summary"]["required"]
    for branch in SCHEMA["allOf"]
}
MACHINE = re.compile(r"(?<![\w.])(/(home|root|Users|tmp|mnt|work|opt|var)/|[A-Za-z]:\\)")


def a_result(name, summary, rows=({"arm": "ours", "seconds": 1 / 3},), given=("--seed", "3")):
    run = record.start(f"{name}.py", record.arguments(None), ["--quick", *given])
    return run.document(rows, summary)


# ---- result files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_holds_to_the_schema(path):
    text = path.read_text("utf-8")
    result = json.loads(text)
    jsonschema.validate(result, SCHEMA)
    assert result["name"] == path.stem and f"benchmarks/{path.stem}.py" in result["command"]
    assert (FOLDER / f"{path.stem}.py").is_file() and "--quick" not in result["command"]
    assert not MACHINE.search(text), "no path of the machine"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_knows_every_benchmark():
    assert {script.removesuffix(".py") for script in SCRIPTS} <= set(SUMMARIES)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_has_all_of_its_keys(name):
    whole = dict.fromkeys(SUMMARIES[name], 0.5)
    jsonschema.validate(a_result(name, whole), SCHEMA)
    for key in whole:
        lacking = {other: value for other, value in whole.items() if other != key}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(a_result(name, lacking | {"other": 1}), SCHEMA)


def test_a_result_says_where_it_comes_from():
    result = a_result(
        "mine", {"ratio": 2 / 3}, rows=[{"figures": [1 / 3, 2.0], "none": None, "what": "x", "n": 123456}]
    )
    assert result["command"] == "python benchmarks/mine.py --quick --seed 3" and result["seed"] == 3
    assert result["versions"]["torch"] == record.version("torch") and result["device"]["cores"] >= 1
    assert result["rows"] == [{"figures": [0.33333, 2.0], "none": None, "what": "x", "n": 123456}]
    assert result["summary"] == {"ratio": 0.66667}
    assert not MACHINE.search(json.dumps(result))


def test_a_result_is_written_whole_with_a_line_for_each_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "commit", lambda: "a" * 40 + "+dirty")
    rows = [{"arm": "one", "seconds": 1.5}, {"arm": "two", "seconds": 1234.5}]
    record.start("mine.py", record.arguments(None), []).finish(rows, {"ratio": 2.0})
    (path,) = (tmp_path / "results").iterdir()
    result = json.loads(path.read_text("utf-8"))
    assert result["rows"] == rows and '    {"arm": "two", "seconds": 1234.5}\n' in path.read_text("utf-8")
    shown = capsys.readouterr().out
    assert "1,234" in shown and "ratio" in shown and "mine.json" in shown


def test_a_quick_run_writes_nothing_and_needs_no_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(record, "commit", lambda: pytest.fail("asked for"))
    record.start("mine.py", record.arguments(None), ["--quick"]).finish([{"seconds": 1.5}], {"ratio": 2.0})
    assert list(tmp_path.iterdir()) == []


def test_the_commit_tells_whether_the_code_is_another(tmp_path, monkeypatch):
    def git(*command):
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(record, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="commit"):
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        record.commit()
    code, result = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "mine.json"
    result.parent.mkdir(parents=True)
    for path in (code, result):
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    assert re.fullmatch("[0-9a-f]{40}", record.commit())
    result.write_text("2")
    (tmp_path / "new.py").write_text("3")
    assert "+" not in record.commit(), "neither a result nor an untracked file changes the code"
    code.write_text("2")
    assert record.commit().endswith("+dirty")


BY_HAND = ("faults.py", "multi_host.py", "sweep.py")
"""Even a quick run starts several drivers or hosts of its own, and takes minutes."""


@pytest.mark.slow
@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in BY_HAND])
def test_quick_runs_write_nothing(script):
    def files():
        return {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    command = [sys.executable, f"benchmarks/{script}", "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "a quick run" in run.stdout and files() == before


def test_the_package_is_this_checkout():
    assert Path(benchmarks.__file__).parent == FOLDER, "another distribution owns the name `benchmarks`"


# ---- timing ----------------------------------------------------------------------------------------


def test_contestants_take_turns():
    calls = []
    runs = {name: lambda turn, name=name: calls.append((name, turn)) for name in "abc"}
    figures = interleaved(runs, rounds=5, seconds=0.0, seed=0)
    assert {name: len(seconds) for name, seconds in figures.items()} == {"a": 5, "b": 5, "c": 5}
    assert calls[:6] == [(name, turn) for name in "abc" for turn in (0, 1)], "two to warm up"
    rounds = [calls[start : start + 3] for start in range(6, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [[(name, turn) for name in "abc"] for turn in range(2, 7)]
    assert len({tuple(name for name, _ in each) for each in rounds}) > 1, "not always in the same order"


def test_short_work_is_repeated():
    calls = []
    interleaved({"a": calls.append}, rounds=2, seconds=0.01, seed=0)
    assert len(calls) > 100 and calls == list(range(len(calls)))


def test_spread():
    five = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (five.median, five.low, five.high, five.quartiles) == (3.0, 1.0, 5.0, (2.0, 4.0))
    one = spread([2.0])
    assert (one.median, one.low, one.high, one.quartiles) == (2.0, 2.0, 2.0, (2.0, 2.0))


# ---- augmentation: like is compared with like ------------------------------------------------------


@pytest.mark.parametrize("size", [32, 45])
def test_lean_pillow_gives_our_bytes(size):
    pixels = photographs(size, 1, seed=0)[0]
    image, batch = Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None]
    middle = torch.tensor([0.25, 0.75])
    draws = iter(lambda: float(middle[next(turn) % 2]), None)
    turn = iter(range(10**6))
    every = variants(size, lambda: next(draws))
    assert set(every) == set(OPERATIONS)
    for index, name in enumerate(OPERATIONS):
        signs = (-1, 1) if OPERATIONS[name].signed else (1,)
        assert len(every[name]) == LEVELS * len(signs)
        for change, (level, sign) in zip(
            every[name], [(level, sign) for level in range(LEVELS) for sign in signs], strict=True
        ):
            what = Parameters(*(torch.tensor([[value]]) for value in (index, level, sign)), middle.view(1, 1, 2))
            ours = apply(batch, what, FILL)[0].permute(1, 2, 0).numpy()
            assert np.array_equal(np.asarray(change(image)), ours), (name, level, sign)


def test_lean_pillow_draws_two_operations():
    image = Image.fromarray(photographs(32, 1, seed=0)[0])
    augment = two_operations(32, seed=0)
    before = image.tobytes()
    assert len({augment(image).tobytes() for _ in range(50)}) > 40
    assert image.tobytes() == before, "the image is left as it is"


def test_ours_always_has_two_operations_and_every_one_at_every_level():
    found = torch.zeros(len(OPERATIONS), LEVELS)
    for policy in policies():
        parameters = two_always(policy, 256, seeded_generator(0))
        assert len(parameters) == 256 and (parameters.operations >= 0).all()
        for place in range(2):
            pairs = parameters.operations[:, place], parameters.levels[:, place]
            found.index_put_(pairs, torch.tensor(1.0), accumulate=True)
    assert found.sum() == 10 * 256 * 2 and found.min() > 0
    assert float(found.std() / found.mean()) < 0.3, "about equally often"


def test_images_are_the_same_for_all_and_follow_from_the_seed():
    case = Case(32, 4, 12, seed=1)
    assert torch.equal(case.images[5], torch.from_numpy(case.arrays[5]).permute(2, 0, 1))
    assert np.array_equal(np.asarray(case.pictures[5]), case.arrays[5])
    assert torch.equal(case.images, Case(32, 4, 12, seed=1).images)
    assert not torch.equal(case.images, Case(32, 4, 12, seed=2).images)
    assert [case.rows(turn).start for turn in range(4)] == [0, 4, 8, 0]


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch, capsys):
    for package in ("kornia", "kornia.augmentation", "albumentations"):
        monkeypatch.setitem(sys.modules, package, None)
    names = [one.name for _ in range(2) for one in peers(Case(16, 2, 4, seed=0))]
    assert names and all(name.startswith(("Pillow", "torchvision")) for name in names)
    said = capsys.readouterr().out
    assert said.count("not installed") == 2 and "kornia" in said and "albumentations" in said


def test_ratios_grant_more_processes_to_what_goes_image_by_image():
    def row(name, threads, rate):
        return {"contestant": name, "threads": threads, "images_per_s": rate}

    kinds = {"us": "ours", "pillow": "lean", "slow": "lean", "one": "peer", "batch": "peer", "less": "other"}
    rows = [row("us", 1, 80.0), row("us", 2, 120.0), row("pillow", 1, 10.0), row("slow", 1, 5.0)]
    rows += [row("one", 1, 8.0), row("batch", 1, 4.0), row("batch", 2, 30.0), row("less", 1, 1000.0)]
    singles = {"pillow", "slow", "one"}
    assert ratios(rows[0], rows, kinds, singles) == {"ratio_pillow": 8.0, "ratio_best_peer": 10.0}
    assert ratios(rows[1], rows, kinds, singles) == {"ratio_pillow": 6.0, "ratio_best_peer": 4.0}


# ---- step ------------------------------------------------------------------------------------------


def test_the_naive_loop_has_the_same_loss():
    logits, answers = torch.randn(2, 16, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 10
    expected = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd_loss(logits, answers, 4.0)
    torch.testing.assert_close(distillation(4.0, 0.9)(logits, answers, labels), expected)


def test_the_naive_loop_trains_on_pictures_of_the_same_images():
    task = shaped_task("resnet8", "resnet8", 8, 4, seed=0)
    loss, accuracy = naive(task, 0, torch.device("cpu"))(0)
    assert 0 < loss < 20 and 0 <= accuracy <= 1
    for data in (task.data, digits_task("mlp", 0).data):
        pictures = Pictures(replace(data, crop=0, flip=False))
        images, labels = next(iter(data.train.batches(4)))
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        for index in range(4):
            seen, label = pictures[index]
            torch.testing.assert_close(seen, (images[index] / 255 - mean) / std)
            assert label == labels[index]


def test_clocks_leave_the_training_as_it_is_and_account_for_all_of_it():
    task = shaped_task("resnet8", "resnet8", 8, 4, seed=0)
    plain, timed = (learner(task, "policy", 0, "cpu") for _ in range(2))
    clock = watch(timed)
    clock.epoch(timed)
    plain.step()
    for one, other in zip(plain.model.parameters(), timed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert tuple(clock.seconds) == PARTS and min(clock.seconds.values()) > 0
    assert min(apart(learner(task, "plain", 0, "cpu"), 1).values()) > 0


@pytest.mark.parametrize(
    ("arm", "channels_last"),
    [("plain", True), ("contiguous", False)],
)
def test_the_variants_are_what_they_are_called(arm, channels_last):
    student = learner(shaped_task("resnet8", "resnet8", 8, 4, seed=0), arm, 0, "cpu")
    assert student.model.conv1.weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_the_policy_is_a_full_and_strong_one():
    policy = strong_genome(0).policy
    assert len(policy) == 30 and {entry.op for entry in policy} == set(OPERATIONS)
    assert all(entry.probability >= 5 and entry.magnitude >= 5 for entry in policy)
    assert strong_genome(0) == strong_genome(0) != strong_genome(1)


def test_the_digits_case_is_the_demos_student():
    task = digits_task("mlp", 0)
    assert (task.role, task.model, task.teacher.model) == ("student", "mlp", "resnet8")
    assert (len(task.data.train), task.recipe.batch_size, task.distill.alpha) == (100, 20, 0.9)


# ---- hard_corrupted --------------------------------------------------------------------------------


def test_corruptions_change_the_pixels_alone_and_always_in_the_same_way():
    for setting, channels in zip(hard_corrupted.SETTINGS.values(), (1, 3), strict=True):
        pixels = torch.randint(256, (7, channels, 8, 8), generator=seeded_generator(0), dtype=torch.uint8)
        images, before = TensorImages(pixels, torch.arange(7)), pixels.clone()
        found, again = (hard_corrupted.corrupted(images, setting) for _ in range(2))
        assert tuple(found) == hard_corrupted.CORRUPTIONS and torch.equal(pixels, before)
        for name, copy in found.items():
            assert copy.images.shape == pixels.shape and copy.images.dtype == torch.uint8
            assert torch.equal(copy.labels, images.labels) and torch.equal(copy.images, again[name].images)
            assert not (copy.images == pixels).flatten(1).all(1).any(), f"{name} leaves no image as it is"


def test_corruptions_are_what_they_are_called():
    flat = torch.full((40, 1, 9, 9), 51, dtype=torch.uint8)
    point = torch.zeros(40, 1, 9, 9, dtype=torch.uint8)
    point[:, :, 4, 2] = 255
    images = TensorImages(torch.cat((flat, point)), torch.zeros(80, dtype=torch.int64))
    found = hard_corrupted.corrupted(images, hard_corrupted.SETTINGS["digits"])
    flats, points = ({name: copy.images[part] for name, copy in found.items()} for part in (slice(40), slice(40, 80)))
    for name in ("blur", "contrast"):
        assert torch.equal(flats[name], flat), f"{name} keeps the mean"
    assert abs(flats["noise"].float().mean() / 255 - 0.2) < 0.05, "clipped at 0, so a little brighter"
    places = {tuple(place) for place in (points["translation"] == 255).nonzero()[:, 2:].tolist()}
    assert places == {(3, 2), (5, 2), (4, 1), (4, 3)} and (points["translation"] > 0).flatten(1).sum(1).eq(1).all()
    turned = points["rotation"].float()[:, 0]
    rows = (turned.sum(2) * torch.arange(9)).sum(1) / turned.sum((1, 2)) - 4
    expected = 2 * np.sin(np.radians(hard_corrupted.ANGLE))
    assert set(rows.sign().tolist()) == {-1.0, 1.0} and (rows.abs() - expected).abs().max() < 0.2
    assert points["blur"].max() == points["blur"][0, 0, 4, 2] < 128 and abs(int(points["blur"][0].sum()) - 255) <= 12
    assert (points["contrast"].float().mean((1, 2, 3)) - 255 / 81).abs().max() < 1


def test_every_part_is_painted_over_columns_of_its_own(monkeypatch):
    codes, width = {"train": 10, "validation": 100, "test": 200}, 640
    photo = np.zeros((427, width, 3), dtype=np.uint8)
    for part, (first, end) in hard_corrupted.COLUMNS.items():
        photo[:, round(first * width) : round(end * width)] = codes[part]
    photos = type("Photos", (), {"images": [photo, photo]})
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: photos)
    data = hard_corrupted.images_of("photographs", hard_corrupted.SETTINGS["photographs"], seed=0, copies=2)
    grounds = {part: getattr(data, part).images for part in codes}
    assert {part: len(images) for part, images in grounds.items()} == {"train": 1200, "validation": 100, "test": 597}
    for part, images in grounds.items():
        own = (images == codes[part]).all(1).float().mean((1, 2))
        assert own.min() > 0.05, f"some of every {part} image is bare, and from {part}'s columns"
        bare = hard_corrupted.squares(hard_corrupted.COLUMNS[part], 400, seeded_generator(1))
        assert bare.shape == (400, 3, 16, 16) and (255 * bare).round().unique().tolist() == [codes[part]]


def test_a_painted_digit_stands_out_in_every_channel():
    ground = torch.rand(200, 3, 1, 1, generator=seeded_generator(0)).expand(200, 3, 16, 16)
    painted = hard_corrupted.painted(ground, torch.ones(200, 1, 8, 8), seeded_generator(1))
    assert float((painted - ground).abs().min()) > 0.299 and painted.min() >= 0 and painted.max() <= 1
    assert torch.equal(hard_corrupted.painted(ground, torch.zeros(200, 1, 8, 8), seeded_generator(1)), ground)


def test_a_gain_is_ours_minus_theirs_and_its_p_is_corrected_within_its_family():
    changes = {"kd": 0.0, "trivialaugment": 0.05, "vae": 0.01, **dict.fromkeys(hard_corrupted.HARD, 0.1)}
    changes["hard_mix"] = -0.1
    wobble = {arm: 0.001 * np.cos(np.arange(5) * (place + 1)) for place, arm in enumerate(changes)}
    seeds = {arm: [0.5 + float(change + one) for one in wobble[arm]] for arm, change in changes.items()}
    rows = [
        {"set": name, "arm": arm, "clean_by_seed": by_seed, "corrupted_by_seed": [value / 2 for value in by_seed]}
        for name in hard_corrupted.SETTINGS
        for arm, by_seed in seeds.items()
    ]
    summary = hard_corrupted.figures([*rows, {"set": "digits", "arm": "teacher", "clean": 1.0}])
    assert set(SUMMARIES["hard_corrupted"]) <= set(summary) and len(summary) == 2 * (5 * 3 + 2) * 2
    assert summary["digits_hard_affine_minus_kd_clean"] == pytest.approx(0.1, abs=0.002)
    assert summary["photographs_hard_mix_minus_kd_corrupted"] == pytest.approx(-0.05, abs=0.001)
    assert summary["digits_hard_affine_minus_trivialaugment_corrupted"] == pytest.approx(0.025, abs=0.001)
    assert summary["digits_hard_vae_minus_vae_clean"] == pytest.approx(0.09, abs=0.002)
    p = [stats.ttest_rel(seeds[arm], seeds["kd"]).pvalue for arm in hard_corrupted.HARD]
    found = [summary[f"p_digits_{arm}_minus_kd_clean"] for arm in hard_corrupted.HARD]
    assert found == pytest.approx(holm(p)) and max(found) < 0.001
    alone = stats.ttest_rel(seeds["hard_vae"], seeds["vae"]).pvalue
    assert summary["p_digits_hard_vae_minus_vae_clean"] == pytest.approx(alone)


# ---- role_wise -------------------------------------------------------------------------------------


def role_wise_rows():
    generator, rows = np.random.default_rng(0), []
    for place, arm in enumerate(role_wise.ARMS):
        by_seed = (0.9 + 0.01 * place + 0.001 * generator.random(6)).tolist()
        strength = [0.1 * one for one in range(6 * 15)]
        rows.append({"arm": arm, "accuracy": 0.9, "half_width_95": 0.01, "accuracy_by_seed": by_seed})
        rows[-1] |= {"strength_by_seed": strength} if arm not in (role_wise.NONE, role_wise.TRIVIAL) else {}
    return rows


def test_role_wise_gains_are_points_paired_by_repetition():
    rows = role_wise_rows()
    summary, seeds = role_wise.figures(rows), {row["arm"]: row["accuracy_by_seed"] for row in rows}
    assert len(summary) == 2 * 5 and set(summary) <= set(SUMMARIES["role_wise"])
    for arm, points in (("none", 3), ("teacher_schedule", 2), ("student_only", 1), ("trivialaugment", -3)):
        assert summary[f"role_wise_minus_{arm}"] == pytest.approx(points, abs=0.1)
        p = stats.ttest_rel(seeds["role_wise"], seeds[arm]).pvalue
        assert summary[f"p_role_wise_minus_{arm}"] == pytest.approx(p)


def test_role_wise_is_drawn_from_its_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(role_wise, "PICTURE", tmp_path / "role_wise.png")
    role_wise.plot(json.loads(json.dumps(role_wise_rows())))
    with Image.open(tmp_path / "role_wise.png") as picture:
        assert picture.size[0] > 1000


def test_a_student_of_two_bits_is_smaller():
    task = replace(digits_task("resnet8", 0), bits=Bits(2, 2))
    found = role_wise.sizes(task)
    assert 8 < found["full_precision_in_bits"] / found["size_in_bits"] < 16
    assert role_wise.FULL.epochs % role_wise.FULL.interval == 0, "all slices are of one length"


# ---- projection ------------------------------------------------------------------------------------


def test_an_image_stands_in_its_corner_and_nowhere_else():
    pixels = torch.randint(1, 256, (8, 1, 3, 3), generator=seeded_generator(0), dtype=torch.uint8)
    images = TensorImages(pixels, torch.arange(8))
    corners = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    found = projection.placed(images, corners)
    assert torch.equal(found.labels, images.labels) and found.images.shape == (8, 1, 6, 6)
    for canvas, image, corner in zip(found.images[:, 0], pixels[:, 0], corners.tolist(), strict=True):
        top, left = 3 * (corner // 2), 3 * (corner % 2)
        assert torch.equal(canvas[top : top + 3, left : left + 3], image) and (canvas > 0).sum() == 9
    everywhere, where = projection.everywhere(images)
    assert torch.equal(everywhere.labels, torch.arange(8).repeat_interleave(4)) and where[:5].tolist() == [
        0,
        1,
        2,
        3,
        0,
    ]
    assert torch.equal(everywhere.images[where == 2], projection.placed(images, torch.full((8,), 2)).images)


def test_the_teachers_are_taught_the_students_digits_and_more_and_nobody_what_is_held_out():
    setting = replace(projection.QUICK, train=40, taught=200)
    data, same, other = projection.images_of(3, setting)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 4 * 300, 4 * 597]
    assert (data.classes, same.classes, other.classes) == (10, 10, 4) and (data.crop, data.flip) == (0, False)
    assert len(same.train) == 800 and torch.equal(same.train.images, other.train.images)
    digits = [
        {bytes(image.numpy()) for image in part.images} for part in (data.train, same.train, data.validation, data.test)
    ]
    assert digits[0] < digits[1] and not digits[1] & digits[2] and not digits[1] & digits[3]
    assert other.train.labels.bincount().tolist() == [200] * 4
    upper = other.train.images[:, :, :8].flatten(1).sum(1) > 0
    assert torch.equal(upper, other.train.labels < 2)


def test_the_random_teacher_is_as_drawn_but_for_its_statistics():
    data, *_ = projection.images_of(0, projection.QUICK)
    teacher = projection.untrained(data, seed=7)
    drawn = projection.build_model(projection.TEACHER, seed=7, classes=10, channels=1, size=16).state_dict()
    changed = {name for name, value in teacher.weights.items() if not torch.equal(value, drawn[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    network = teacher.freeze(data).model
    images = projection.Normalize(data, torch.device("cpu"))(data.train.images)
    shown = network[:2](images)  # the first convolution and what normalizes it
    assert shown.mean((0, 2, 3)).abs().max() < 1e-4 and (shown.std((0, 2, 3)) - 1).abs().max() < 1e-2


def test_every_arm_weighs_the_labels_alike():
    assert len(projection.ARMS) == 3 + 3 * (2 + 3 + 3) == len(set(projection.ARMS))
    for arm in projection.ARMS:
        for weight in arm.weights:
            distill = arm.distill(weight)
            (term,) = distill.terms
            assert distill.alpha == projection.ALPHA and term.loss.kind == arm.loss
            assert distill.alpha * term.weight == pytest.approx(weight)
            assert arm.loss not in projection.LOSSES or term.loss.projection == arm.projection
    assert projection.LABELS.distill(0.0).alpha == 0.0 and not projection.LABELS.weights


def test_a_projection_is_compared_over_the_losses_and_corrected_over_the_teachers():
    added = {"none": 0.01, "student": 0.02, "inverted": 0.05}
    arms = {arm: added[arm.projection] + (0.03 if arm.teacher == "same" else 0.0) for arm in projection.FEATURES}
    arms |= {projection.LABELS: 0.0, projection.SPECTRAL: -0.01, projection.KD: 0.1}
    wobble = {arm: 0.004 * np.cos(np.arange(5) * (place + 1)) for place, arm in enumerate(arms)}
    seeds = {arm: (0.8 + change + wobble[arm]).tolist() for arm, change in arms.items()}
    rows = [{**arm._asdict(), "accuracy": 0.8, "accuracy_by_seed": by_seed} for arm, by_seed in seeds.items()]
    rows += [{**arm._asdict(), "accuracy": None} for arm in projection.IMPOSSIBLE]
    summary = projection.figures([*rows, {"teacher": "same", "accuracy": 1.0, "accuracy_by_seed": [1.0] * 5}])
    assert set(SUMMARIES["projection"]) <= set(summary) and summary["seeds"] == 5
    assert summary["spectral_minus_none"] == pytest.approx(-1, abs=0.5)
    assert summary["student_minus_none_same"] == pytest.approx(5, abs=0.5)

    def mean(teacher, projected):
        return np.mean([seeds[projection.Arm(teacher, loss, projected)] for loss in projection.LOSSES], axis=0)

    gains = [100 * (mean(teacher, "inverted") - mean(teacher, "student")) for teacher in projection.TEACHERS]
    found = [summary[f"inverted_minus_student_{teacher}"] for teacher in projection.TEACHERS]
    assert found == pytest.approx([gain.mean() for gain in gains]) and found == pytest.approx([3] * 3, abs=0.5)
    p = [stats.ttest_1samp(gain, 0).pvalue for gain in gains]
    corrected = [summary[f"p_inverted_minus_student_{teacher}"] for teacher in projection.TEACHERS]
    assert corrected == pytest.approx(holm(p))
    alone = stats.ttest_rel(seeds[projection.KD], seeds[projection.LABELS]).pvalue
    assert summary["p_kd_minus_none"] == pytest.approx(alone)
