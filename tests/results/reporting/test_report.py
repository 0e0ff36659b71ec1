"""The page on a sweep: what it says, what it leaves out, and that it stands alone."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch
from sweep_folder import ERROR, SETTINGS, STRONG, sweep_folder

from results.analysis.cost import Cost, duration
from results.analysis.evaluation import Arm, Evaluation
from results.reporting.html import report
from results.reporting.sample_images import bands
from results.reporting.sweep_folder import SweepFolder
from results.runlog.history import History
from spaces import Genome, ImageSpec, Phase, RequestError, Schedule

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
    path = report(folder, images=IMAGES)
    assert path == folder / "report" / "index.html"
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_it_asks_the_sweeps_question_and_answers_it_with_intervals(page):
    question = "What should the teacher (resnet8) and the student (mlp, 2-bit weights) each see on digits"
    assert f"{question}, when the student learns from the teacher by kd?" in page.text
    assert "Teacher: better than the random control; not shown to differ from no augmentation" in page.text
    # Three values a hundredth apart: half width = 4.3027 · 0.01 / √3 = 0.0248; their differences are all alike.
    assert "it reaches 81.00 ± 2.48 % on the test images (mean over 3 seeds with its 95 % interval)" in page.text
    assert "Student: worse than no augmentation and the random control" in page.text
    assert "−10.00 ± 0.00 points" in page.text and "worse, by the 95 % interval" in page.text


def test_every_chapter_is_there_and_can_be_reached(page):
    anchors = [link["href"].removeprefix("#") for link in page.all("a") if link["href"].startswith("#")]
    assert anchors == [
        *("answer", "schedules", "lineage", "curves", "t-stddev", "samples", "cost", "failed", "again", "json"),
    ]
    assert [section["id"] for section in page.all("section")] == anchors


def test_every_picture_says_in_words_what_it_shows(page):
    pictures = page.all("img")
    words = [picture["alt"] for picture in pictures]
    assert len(pictures) > 20 and all(words)
    # STRONG for half of the epochs: Rotate 9 · 1 and Cutout 4 · 0.5, halved; their mean 2.75.
    assert any("mean strength 2.75; strongest on average Rotate 4.50, Cutout 1.00" in each for each in words)
    assert any("teacher-pbt: 3 members, 2 generations, 1 copy; the best, teacher-pbt-00" in each for each in words)
    spread = "at epoch 4 median 72.0 %, quartiles 62.0 and 82.0 %, best 92.0 % (teacher-pbt-02)"
    assert any(spread in each for each in words)
    assert any("3 members, ratio 0.940 to 0.940, accuracy 52.0 to 92.0 %" in each for each in words)
    assert "image 1 at epoch 2: Rotate" in " ".join(words)


def test_nothing_is_asked_of_any_network(source, page):
    targets = [value for _, each in page.tags for name, value in each.items() if name in ("src", "srcset", "href")]
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert not re.search(r"url\(|@import|<script|<iframe|<object", source)
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_what_comes_from_outside_is_text_and_no_markup(source, page):
    assert ERROR in page.text and "<script>alert" not in source and "<b>" not in source
    assert "s3cr3t" not in source


def test_it_says_how_to_do_it_again_and_how_to_use_what_was_found(page):
    assert "roletune search sweep.yaml" in page.text and "Seed 7; made with roletune 0.1.0, torch 2.15.0" in page.text
    assert " ".join(SETTINGS.split("tracking")[0].split()) in page.text
    assert 'Schedule.load("policy.student.json").stretch(epochs)' in page.text


def test_images_that_cannot_be_had_are_one_line(folder, tmp_path):
    text = Page(report(folder, tmp_path / "p.html", no_images="no such <folder>").read_text()).text
    assert "No images are shown: no such <folder>." in text
    color = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    text = Page(report(folder, tmp_path / "p.html", images=color).read_text()).text
    assert "No images are shown: the student's policy is for images of 1 channels" in text


def test_the_same_folder_gives_the_same_page(folder, source, tmp_path):
    assert report(folder, tmp_path / "again.html", images=IMAGES).read_text() == source


def test_an_evaluation_against_baselines_has_its_place(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    arms = (("policy.student", "policy", (0.95, 0.96, 0.94)), ("trivialaugment", "baseline", (0.80, 0.82, 0.79)))
    arms = tuple(Arm(name, kind, accuracy, (1.0, 1.0, 1.0), "") for name, kind, accuracy in arms)
    evaluation = Evaluation("digits", "student", 4, arms)
    (folder / "evaluation.student.json").write_text(json.dumps(evaluation.to_json()))
    page = Page(report(folder).read_text())
    (claim,) = evaluation.claims()
    assert "is shown to be better than every baseline" in claim
    assert page.text.count(claim) == 2, "in the answer, and in the chapter"
    assert [section["id"] for section in page.all("section")][:2] == ["answer", "against"]
    means = "mean over 3 seeds in percent: policy.student 95.00, trivialaugment 80.33."
    assert any(means in picture["alt"] for picture in page.all("img"))


# What has not ended --------------------------------------------------------------------------------------------------


def test_a_sweep_that_runs_has_a_partial_report_that_says_so(tmp_path):
    path = report(sweep_folder(tmp_path / "digits-001", finished=False), images=IMAGES)
    page = Page(path.read_text())
    assert "A partial report. This sweep has no result yet" in page.text
    assert "14 November 2023" in page.text
    assert "There is none yet: the test images are opened at the very end" in page.text
    assert "the student (mlp, 2-bit weights)" in page.text, "the question is the whole sweep's"
    assert "failed" not in [section["id"] for section in page.all("section")]


def test_a_sweep_without_a_journal_has_a_report_of_its_result(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "journal.jsonl").unlink()
    text = Page(report(folder).read_text()).text
    assert "This sweep kept no journal, so only its length is known: 1 min 15 s." in text
    assert "Student: worse than no augmentation" in text


def test_a_policy_that_cannot_be_read_does_not_hide_the_rest(tmp_path):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / "policy.teacher.json").write_text("{")
    text = Page(report(folder).read_text()).text
    assert "Its policy is left out:" in text and "Student: worse than no augmentation" in text


# What is refused -----------------------------------------------------------------------------------------------------


def test_what_is_no_sweeps_folder_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RequestError, match=r"is no sweep's folder: it has no sweep\.yaml; give a sweep's folder"):
            report(folder)


def test_a_sweep_in_which_nothing_has_happened_is_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SETTINGS)
    with pytest.raises(RequestError, match=r"nothing has happened in .* yet; wait for the first epoch"):
        report(tmp_path)
    (tmp_path / "journal.jsonl").write_text('{"event": "session_started", "at": 1, "session": 1, "uuid": "t"}\n')
    with pytest.raises(RequestError, match="nothing has happened"):
        report(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("sweep.yaml", "- a list", "holds settings by name"),
        ("sweep.yaml", "a: [", "is no YAML"),
        ("sweep.yaml", "!!python/object/apply:os.getcwd []", "is no YAML"),
        ("result.json", "{", "is no JSON"),
        ("result.json", "[]", "no result of a sweep"),
        ("journal.jsonl", "{}\n", "line 1 of .* is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, says):
    folder = sweep_folder(tmp_path / "digits-001")
    (folder / name).write_text(content)
    with pytest.raises(RequestError, match=says):
        report(folder)


def test_it_is_written_as_html_alone(folder, tmp_path):
    with pytest.raises(RequestError, match=r"a report is HTML.*choose a name that ends in \.html"):
        report(folder, tmp_path / "report.pdf")


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
    assert "how many trials ran at once was not written down" in Page(report(folder).read_text()).text


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


def test_samples_show_what_a_schedule_does_and_say_so():
    schedule = Schedule((Phase(4, Genome()), Phase(4, STRONG)), "student", ImageSpec(8, 1, (78,)))
    first, idle, *shown = bands(schedule, IMAGES)
    assert first.heading == "as they are" and len(first.cells) == 4
    assert idle.heading == "epochs 1, 3" and not idle.cells
    assert [band.heading for band in shown] == ["epoch 5", "epoch 7"]
    told = {word.split()[0] for band in shown for _, words in band.cells for word in words.split(", ")}
    assert {"Rotate", "Cutout"} <= told <= {"Rotate", "Cutout", "unchanged"}
    assert bands(schedule, IMAGES) == [first, idle, *shown]
