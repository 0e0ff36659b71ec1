"""The report of a sweep: its content, and that it is self-contained."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from sweep_folder import ERROR, SETTINGS, STRONG, sweep_folder

from results.analysis.choices import MemberChoices
from results.analysis.cost import Cost, duration
from results.analysis.effects import Effect, EffectsReport, RoleEffects
from results.analysis.evaluation import Arm, Evaluation
from results.analysis.pareto import Candidate
from results.plots.image_grid import sample_bands
from results.reporting.html import write_report
from results.reporting.narrative import facts
from results.reporting.sweep_folder import SweepFolder
from results.runlog.events import HeadroomMeasured, PolicyConfirmed
from results.runlog.history import History
from spaces import Genome, ImageSpec, Phase, RequestError, Schedule
from spaces.augmentations import augmentation

IMAGES = torch.arange(4 * 64, dtype=torch.uint8).reshape(4, 1, 8, 8)


class Page(HTMLParser):
    """The words of a page, and each tag's attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] != "style":
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sweep_folder(tmp_path_factory.mktemp("runs") / "digits-001")


@pytest.fixture(scope="module")
def source(folder):
    path = write_report(folder, images=IMAGES)
    assert path == folder / "report" / "index.html"
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_it_says_what_was_searched_and_gives_results_with_intervals(page):
    subtitle = (
        "Search of augmentation schedules for the teacher (resnet8) and the student (mlp, 2-bit weights) on digits"
    )
    assert f"{subtitle}. Distillation loss: kd." in page.text
    assert "Teacher: better than the random control; no significant difference from no augmentation" in page.text
    # Three values a hundredth apart: half width = 4.3027 · 0.01 / √3 = 0.0248; their differences are all alike.
    assert (
        "training with the searched schedule: 81.00 ± 2.48 % (mean and 95 % confidence interval over 3 seeds)"
        in page.text
    )
    assert "Student: worse than no augmentation and the random control" in page.text
    assert "−10.00 ± 0.00 points" in page.text and "significantly worse (95 % confidence interval)" in page.text


def test_a_target_domain_is_named_beside_the_accuracy_in_domain(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    data = json.loads((folder / "result.json").read_text())
    data["roles"]["student"]["in_domain"] = {"policy": [0.9, 0.9, None]}
    (folder / "result.json").write_text(json.dumps(data))
    page = Page(write_report(folder, images=IMAGES).read_text("utf-8"))
    assert page.text.count("Test accuracy after final training") == 1
    home = "in domain: 90.00 ± 0.00 % (mean and 95 % confidence interval over 2 seeds)."
    assert re.search(
        f"Accuracy in the target domain after final training.*over 3 seeds\\); {re.escape(home)}", page.text
    )


def test_every_section_is_there_and_can_be_reached(page):
    anchors = [link["href"].removeprefix("#") for link in page.all("a") if link["href"].startswith("#")]
    assert anchors == [
        *("result", "schedules", "lineage", "accuracy", "t-stddev", "samples", "cost", "failed", "reproduce", "use"),
    ]
    assert [section["id"] for section in page.all("section")] == anchors


def test_every_picture_has_a_description(page):
    pictures = page.all("img")
    words = [picture["alt"] for picture in pictures]
    assert len(pictures) == 2 * 5 and all(words)
    # STRONG for half of the epochs: Rotate 9 · 1 and Cutout 4 · 0.5, halved; their mean 2.75.
    assert any("mean strength 2.75; strongest on average Rotate 4.50, Cutout 1.00" in each for each in words)
    assert any("teacher-pbt: 3 members, 2 generations, 1 copy; the best, teacher-pbt-00" in each for each in words)
    spread = "at epoch 4 median 72.0 %, quartiles 62.0 and 82.0 %, best 92.0 % (teacher-pbt-02)"
    assert any(spread in each for each in words)
    assert any("3 members, ratio 0.940 to 0.940, accuracy 52.0 to 92.0 %" in each for each in words)
    samples = [each for each in words if each.startswith("Sample images of the")]
    assert len(samples) == 2 and all("epochs 0, 1: no operation is active" in each for each in samples)
    for number in range(1, 5):
        assert all(re.search(rf"image {number} at epoch 2: (Rotate|Cutout|unchanged)", each) for each in samples)


def test_nothing_is_asked_of_any_network(source, page):
    targets = [value for _, each in page.tags for name, value in each.items() if name in ("src", "srcset", "href")]
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert not re.search(r"url\(|@import|<script|<iframe|<object", source)
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_what_comes_from_outside_is_text_and_no_markup(source, page):
    assert ERROR in page.text and "<script>alert" not in source and "<b>" not in source
    assert "s3cr3t" not in source


def test_it_says_how_to_reproduce_and_use_the_policies(page):
    assert "roletune search sweep.yaml" in page.text and "Seed 7; versions: roletune 0.1.0, torch 2.15.0" in page.text
    assert " ".join(SETTINGS.split("tracking")[0].split()) in page.text
    assert 'Schedule.load("policy.student.json").stretch(epochs)' in page.text


def test_images_that_cannot_be_had_are_one_line(folder, tmp_path):
    text = Page(write_report(folder, tmp_path / "p.html", no_images="no such <folder>").read_text()).text
    assert "No images are shown: no such <folder>." in text
    color = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    text = Page(write_report(folder, tmp_path / "p.html", images=color).read_text()).text
    assert "No images are shown: the student's policy needs images (B, 1, H, W)" in text


def test_the_same_folder_gives_the_same_page(folder, source, tmp_path):
    assert write_report(folder, tmp_path / "again.html", images=IMAGES).read_text() == source


def test_an_evaluation_against_baselines_has_its_place(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    arms = (("policy.student", "policy", (0.95, 0.96, 0.94)), ("trivialaugment", "baseline", (0.80, 0.82, 0.79)))
    arms = tuple(Arm(name, kind, accuracy, (1.0, 1.0, 1.0), "") for name, kind, accuracy in arms)
    evaluation = Evaluation("digits", "student", 4, arms)
    (folder / "evaluation.student.json").write_text(json.dumps(evaluation.to_json()))
    page = Page(write_report(folder).read_text())
    (claim,) = evaluation.claims()
    assert "is significantly better than every baseline" in claim
    assert page.text.count(claim) == 2, "in the result, and in the section"
    assert [section["id"] for section in page.all("section")][:2] == ["result", "baselines"]
    means = "mean over 3 seeds in percent: policy.student 95.00, trivialaugment 80.33."
    assert any(means in picture["alt"] for picture in page.all("img"))


def confirm(folder, **changes):
    """Let the journal say that the student's policy was compared with free baselines."""
    event = {
        **{"role": "student", "winner": "uniform", "against": "policy", "free": True, "seeds": 3},
        **{"difference": -0.02, "half_width": 0.01, "accuracies": {"policy": 0.8, "none": None, "uniform": 0.82}},
        **changes,
    }
    headroom = {"role": "student", "seeds": 1, "difference": 0.03, "half_width": None}
    with (folder / "journal.jsonl").open("a") as journal:
        for kind, content in ((HeadroomMeasured, headroom), (PolicyConfirmed, event)):
            journal.write(json.dumps({"event": kind.kind, "at": 1_800_000_000_000, **content}) + "\n")


def test_a_confirmation_has_its_place_and_a_policy_that_lost_is_not_called_found(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    confirm(folder)
    page = Page(write_report(folder).read_text())
    assert [section["id"] for section in page.all("section")][:2] == ["result", "confirmation"]
    assert "Headroom: uniform − no augmentation = +3.00 points over 1 seed." in page.text
    lost = "Not confirmed, uniform is exported: with policy − uniform = -2.00 ± 1.00 points on validation images"
    assert f"{lost} (3 seeds)." in page.text
    table = "uniform 82.00 exported with policy 80.00 in the last round no augmentation failed rejected"
    assert table in page.text
    assert "after final training with uniform, which the search did not beat: 81.00" in page.text
    won = sweep_folder(tmp_path / "digits-002")
    confirm(won, winner="policy", against="uniform", free=False, difference=0.02)
    text = Page(write_report(won).read_text()).text
    assert "Confirmed: with policy − uniform = +2.00 ± 1.00 points" in text
    assert "did not beat" not in text


def test_choices_and_sizes_are_shown_with_their_tables(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "report").mkdir()
    members = [
        MemberChoices(f"student-tpe-0{number}", 0.8 + number / 10, {"loss": loss})
        for number, loss in enumerate(("kd", "dkd"))
    ]
    (folder / "report" / "choices.student.json").write_text(json.dumps([member.to_json() for member in members]))
    candidates = [Candidate("student-tpe-00", 0.8, 80_000, {"bits.weights": 2})]
    (folder / "report" / "pareto.student.json").write_text(json.dumps([each.to_json() for each in candidates]))
    page = Page(write_report(folder).read_text())
    assert "Choices Members of a search by their choices of view, loss and bits." in page.text
    assert "validation, % loss member 90.00 dkd student-tpe-01 80.00 kd student-tpe-00" in page.text
    words = [picture["alt"] for picture in page.all("img")]
    assert (
        "Student: members by their choices. First row of the table: validation, % 90.00, loss dkd, "
        "member student-tpe-01." in words
    )
    assert (
        "Student: members by size and accuracy. First row of the table: size, kB 10.0, validation, % 80.00, "
        "member student-tpe-00." in words
    )


def test_effects_are_shown_with_their_table_and_where_the_roles_differ(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    report = EffectsReport({})
    for role, mean in (("teacher", -0.1), ("student", 9.0)):
        effect = Effect("Rotate", "operation", ("off", "on"), mean, mean - 0.2, mean + 0.2, 0.9, 1.3)
        report = report.with_role(RoleEffects(role, "accuracy", 24, 0.5, (effect,), {"Rotate": "on"}))
    report.save(folder / "effects.json")
    page = Page(write_report(folder).read_text())
    assert "Effects by role Effect of each operation, choice and setting on the score" in page.text
    assert "operations that suit the roles differently (Holm): Rotate (p = " in page.text
    assert "student Rotate +9.000 +8.800 … +9.200 0.900 on" in page.text
    words = [picture["alt"] for picture in page.all("img")]
    assert "Largest effects with their sign; teacher: Rotate -0.1; student: Rotate +9." in words


# What has not ended --------------------------------------------------------------------------------------------------


def test_a_sweep_that_runs_has_a_partial_report_that_says_so(tmp_path):
    path = write_report(sweep_folder(tmp_path / "digits-001", finished=False), images=IMAGES)
    page = Page(path.read_text())
    assert "Partial report. This sweep has no result yet" in page.text
    assert "14 November 2023" in page.text
    assert "No result yet. The test set is used once, after all choices are made." in page.text
    assert "the student (mlp, 2-bit weights)" in page.text, "the subtitle is that of the whole sweep"
    assert "failed" not in [section["id"] for section in page.all("section")]


def test_a_sweep_without_a_journal_has_a_report_of_its_result(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "journal.jsonl").unlink()
    text = Page(write_report(folder).read_text()).text
    assert "This sweep has no journal; its duration was 1 min 15 s." in text
    assert "Student: worse than no augmentation" in text


def test_a_policy_that_cannot_be_read_does_not_hide_the_rest(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "policy.teacher.json").write_text("{")
    text = Page(write_report(folder).read_text()).text
    assert "The policy cannot be read:" in text and "Student: worse than no augmentation" in text


# What is refused -----------------------------------------------------------------------------------------------------


def test_what_is_no_sweeps_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            RequestError, match=r"is not a sweep's folder: it has no sweep\.yaml; give a sweep's folder"
        ):
            write_report(folder)


def test_a_sweep_in_which_nothing_has_happened_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SETTINGS)
    with pytest.raises(RequestError, match=r"has no results yet; wait for the first epoch"):
        write_report(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"event": "session_started", "at": 1, "session": 1, "uuid": "t"}\n')
    with pytest.raises(RequestError, match="has no results yet"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sweep.yaml", "- a list", "must be a mapping of settings"),
        ("sweep.yaml", "a: [", "is not YAML"),
        ("sweep.yaml", "!!python/object/apply:os.getcwd []", "is not YAML"),
        ("result.json", "{", "is not JSON"),
        ("result.json", "[]", "the result of a sweep must hold"),
        ("journal.jsonl", "{}\n", "line 1 of .* is damaged"),
        ("report/choices.student.json", "[3]", "must be a list of members"),
        ("report/pareto.student.json", "{", "is not JSON"),
        ("screening.json", "{}", "the result of a screening must hold its rows"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, says):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(RequestError, match=says):
        write_report(folder)


def test_it_is_written_as_html_alone(folder, tmp_path):
    with pytest.raises(RequestError, match=r"a report must be an HTML file.*choose a name that ends in \.html"):
        write_report(folder, tmp_path / "report.pdf")


# Cost ----------------------------------------------------------------------------------------------------------------


def test_the_cost_adds_up(folder):
    """Two searches and their controls: 2 · 2 · 3 members of 4 epochs, 0.5 s each, of which 0.2 s to augment; every
    other one is scored in 0.1 s; and one trial that failed before its first epoch."""
    history = History.read(folder)
    cost = Cost.of(history)
    assert (cost.trials, cost.epochs) == (13, 48)
    assert cost.seconds == pytest.approx({"train": 48 * 0.3, "augment": 48 * 0.2, "validate": 24 * 0.1})
    assert cost.wall == (history.sessions[0].last_event - history.sessions[0].started) / 1000
    assert cost.utilization == pytest.approx(26.4 / (2 * cost.wall))
    assert sum(share for _, _, share in cost.shares) == pytest.approx(1)


def test_without_the_places_there_is_no_utilization(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001", slots=None)
    assert Cost.of(History.read(folder)).utilization is None
    assert "the number of concurrent trials was not recorded" in Page(write_report(folder).read_text()).text


def test_durations_are_told_as_people_tell_them():
    assert [duration(seconds) for seconds in (0.04, 42.4, 61, 3599.7, 7500)] == [
        *("0.0 s", "42 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"),
    ]


# Pieces --------------------------------------------------------------------------------------------------------------


def test_a_folder_knows_its_roles_and_settings(folder):
    sweep = SweepFolder.read(folder)
    assert sweep.roles == ["teacher", "student"] and sweep.setting("student.bits.weights") == 2
    assert sweep.setting("student.nothing", "–") == "–" and sweep.setting("name.x.y") is None
    assert [stage.kind for stage in sweep.searches("teacher")] == ["pbt", "random"]
    assert list(sweep.failures()) == [("student-full-none-2", ERROR)]


def test_the_facts_name_the_seed_and_the_algorithm_of_each_searched_role(folder, tmp_path):
    assert facts(SweepFolder.read(folder))[:2] == [("search", "pbt"), ("seed", "7")]
    mixed = sweep_folder(tmp_path / "digits-002")
    student = SETTINGS.replace("algorithm: pbt", "algorithm: tpe").replace("algorithm: tpe", "algorithm: pbt", 1)
    (mixed / "sweep.yaml").write_text(student)
    assert facts(SweepFolder.read(mixed))[0] == ("search", "pbt (teacher), tpe (student)")
    one = "{algorithm: pbt, population: 3, epochs: 4, interval: 2}"
    (mixed / "sweep.yaml").write_text(SETTINGS.replace(one, f"[{{algorithm: factorial, epochs: 6}}, {one}]"))
    found = facts(SweepFolder.read(mixed))
    assert found[0] == ("search", "factorial, then pbt") and found[3][1].startswith("6 + 4 epochs")


def test_samples_show_what_a_schedule_does_and_say_so():
    schedule = Schedule((Phase(4, Genome()), Phase(4, STRONG)), "student", ImageSpec(8, 1, (78,)))
    first, idle, *shown = sample_bands(schedule, IMAGES)
    assert first.heading == "original" and len(first.rows[0]) == 4
    assert idle.heading == "epochs 1, 3" and not idle.rows
    assert [band.heading for band in shown] == ["epoch 5", "epoch 7"]
    names = {line.split()[0] for band in shown for cell in band.rows[0] for line in cell.caption}
    assert {"Rotate", "Cutout"} <= names <= {"Rotate", "Cutout", "unchanged"}
    again = sample_bands(schedule, IMAGES)[2:]
    captions = [[[cell.caption for cell in band.rows[0]] for band in bands] for bands in (shown, again)]
    assert captions[0] == captions[1]


def test_a_second_view_is_shown_with_the_images_it_mixes():
    genome = Genome(STRONG.policy, augmentation("cutmix"))
    bands = sample_bands(Schedule((Phase(4, genome),), "student", ImageSpec(8, 1, (78,))), IMAGES)
    views = [band for band in bands if band.note == "second view: cutmix"]
    assert [band.heading for band in views] == ["epoch 0", "epoch 1", "epoch 2", "epoch 3"]
    captions = [line for band in views for cell in band.rows[0] for line in cell.caption]
    assert captions and all(re.fullmatch(r"\d+ % image [1-4]", line) for line in captions)
