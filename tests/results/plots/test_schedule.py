"""The plot of a schedule."""

import numpy as np
import pytest
from PIL import Image

from results.plots.schedule import plot_schedule
from spaces import OPERATIONS, Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule

IMAGE = ImageSpec(8, 1, (0,))
STRONG, WEAK = Genome(Policy((Entry("Rotate", 10, 9),))), Genome(Policy((Entry("Rotate", 0, 0),)))


def schedule(*genomes):
    return Schedule(tuple(Phase(4, genome) for genome in genomes), "student", IMAGE)


def pixels(path):
    """Brightness, (height, width), 0 … 255."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"), dtype=float)


@pytest.mark.parametrize("count", [1, 4, 15])
def test_it_is_a_png_that_grows_with_the_operations(tmp_path, count):
    """8 inches wide at 120 dots an inch; 2.2 inches for the rest, and 0.27 for each operation."""
    genome = Genome(Policy(tuple(Entry(op, 5, 5) for op in list(OPERATIONS)[:count])))
    path = plot_schedule(schedule(genome), tmp_path / "new" / "schedule.png")
    assert path == tmp_path / "new" / "schedule.png"
    height, width = pixels(path).shape
    assert width == 960 and abs(height - 120 * (2.2 + 0.27 * count)) <= 1


def test_strong_is_darker_than_weak(tmp_path):
    """One row that is strong for the first half of the epochs: left of the middle it is dark, right of it light."""
    picture = pixels(plot_schedule(schedule(STRONG, WEAK), tmp_path / "x.png"))
    height, width = picture.shape
    heat = picture[int(0.15 * height) : int(0.40 * height)]  # the upper of the two parts, below its title
    assert heat[:, int(0.25 * width)].max() < 60 and heat[:, int(0.65 * width)].min() > 180


def test_the_same_schedule_gives_the_same_bytes_and_another_one_does_not(tmp_path):
    first = plot_schedule(schedule(STRONG, WEAK), tmp_path / "1.png").read_bytes()
    assert plot_schedule(schedule(STRONG, WEAK), tmp_path / "2.png").read_bytes() == first
    others = [
        schedule(WEAK, STRONG),
        schedule(STRONG),
        schedule(WEAK),
        schedule(Genome(Policy((Entry("ShearX", 10, 9),))), WEAK),
    ]
    pictures = {plot_schedule(each, tmp_path / "3.png").read_bytes() for each in others}
    pictures.add(plot_schedule(schedule(STRONG, WEAK), tmp_path / "4.png", title="another title").read_bytes())
    assert len(pictures) == 5 and first not in pictures


def test_an_empty_policy_has_a_picture(tmp_path):
    """No operation, no strength: one light row."""
    picture = pixels(plot_schedule(schedule(Genome()), tmp_path / "empty.png"))
    height, width = picture.shape
    assert width == 960 and picture[int(0.3 * height), int(0.2 * width) : int(0.7 * width)].min() > 180


def test_an_operation_that_comes_later_is_drawn_from_there(tmp_path):
    late = Genome(Policy((Entry("Rotate", 10, 9), Entry("Invert", 10, 0))))
    alone = plot_schedule(schedule(STRONG, STRONG), tmp_path / "1.png")
    later = plot_schedule(schedule(STRONG, late), tmp_path / "2.png")
    assert pixels(later).shape[0] > pixels(alone).shape[0]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot write .*choose another path"):
        plot_schedule(schedule(STRONG), tmp_path / "file" / "x.png")
