"""The grid of augmented images: pixels as the schedule makes them, captions with the operations applied."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from results.plots import image_grid as grid
from results.plots.contact_sheet import LEAST_SIDE, MOST_SIDE, Band, Cell, ContactSheet, shown_side
from results.plots.image_files import find_images, load_image
from results.plots.image_grid import default_epochs, describe_operations, grid_png, plot_grid, spread
from spaces import OPERATIONS, Entry, Genome, ImageSpec, Parameters, Phase, Policy, RequestError, Schedule
from spaces.policy.sampling import NO_OPERATION

STRONG = Genome(Policy(tuple(Entry(op, 10, 7) for op in OPERATIONS)))


def schedule(size=8, channels=1, genome=STRONG):
    image = ImageSpec(size, channels, (90, 120, 60)[:channels])
    return Schedule((Phase(2, Genome()), Phase(2, genome)), "student", image)


@pytest.fixture
def photos(tmp_path):
    """Three squares of noise, in a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(generator.integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(folder / name)
    return folder


def pixels(png):
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.fixture
def sheets(monkeypatch):
    """The sheets that are drawn."""
    drawn = []

    class Recorded(ContactSheet):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            drawn.append(self)

    monkeypatch.setattr(grid, "ContactSheet", Recorded)
    return drawn


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 8, 28, 32, 100, 224, 300])
def test_every_cell_holds_what_the_schedule_makes_of_the_image(photos, sheets, size, channels):
    """Enlarged by a whole number, so that every pixel can be compared; only what is large is shrunk."""
    here = schedule(size, channels)
    picture = pixels(grid_png(here, photos, epochs=[0, 3], draws=2, seed=5))
    (sheet,) = sheets
    images = torch.stack([load_image(photos / name, here.image) for name in ("a.png", "b.png", "c.png")])
    augmented = here.transform(3, seed=5)(images.repeat_interleave(2, dim=0)).reshape(3, 2, channels, size, size)
    assert size < 8 or not torch.equal(augmented[:, 0], images)
    for column in range(3):
        cells = {(0, 0): images[column], (1, 0): images[column], (1, 1): images[column]}
        cells |= {(2, draw): augmented[column, draw] for draw in range(2)}
        for (band, row), expected in cells.items():
            left, top = sheet.corner(band, row, column)
            shown = picture[top : top + sheet.side, left : left + sheet.side]
            values = expected.permute(1, 2, 0).numpy()
            values = np.broadcast_to(values, (size, size, 3))
            if size > MOST_SIDE:
                small = Image.fromarray(np.ascontiguousarray(values)).resize(
                    (sheet.side,) * 2, Image.Resampling.LANCZOS
                )
                assert sheet.side == MOST_SIDE
                np.testing.assert_array_equal(shown, np.asarray(small))
            else:
                factor = sheet.side // size
                assert sheet.side == size * factor
                np.testing.assert_array_equal(shown, values.repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize("size", [1, 8, 28, 32, 64, 85, 86, 224, 256, 4000])
def test_cells_are_neither_tiny_nor_huge(size):
    assert 0.65 * LEAST_SIDE < shown_side(size) <= MOST_SIDE


def test_the_words_are_what_was_done():
    """In order; a level where it matters, a sign where it has a direction, and no sign on nothing."""
    index = list(OPERATIONS).index

    def of(*places):
        operations, levels, signs = (torch.tensor([column]) for column in zip(*places, strict=True))
        return describe_operations(Parameters(operations, levels, signs, torch.zeros(1, 2, 2)))

    nothing = (NO_OPERATION, 0, 1)
    assert of((index("Rotate"), 6, -1), (index("Cutout"), 4, -1)) == ["Rotate −6", "Cutout 4"]
    assert of((index("Invert"), 3, -1), (index("ShearX"), 9, 1)) == ["Invert", "ShearX 9"]
    assert of((index("TranslateY"), 0, -1), nothing) == ["TranslateY 0"]
    assert of(nothing, nothing) == []


def test_each_cell_has_its_own_words(photos, sheets):
    """Two entries of Invert: an image that was inverted once says it once, and so on."""
    twice = schedule(genome=Genome(Policy((Entry("Invert", 10, 0), Entry("Invert", 10, 0)))))
    grid_png(twice, photos, epochs=[2, 3], draws=20)
    original, *epochs = sheets[0]._bands
    assert [cell.caption for cell in original.rows[0]] == [("a.png",), ("b.png",), ("c.png",)]
    rows = [row for band in epochs for row in band.rows]
    assert len(rows) == 40
    words = {cell.caption for row in rows for cell in row}
    assert words == {("unchanged",), ("Invert",), ("Invert", "Invert")}
    for row in rows:
        for cell, before in zip(row, original.rows[0], strict=True):
            image = np.asarray(before.picture)
            expected = 255 - image if cell.caption.count("Invert") == 1 else image
            np.testing.assert_array_equal(np.asarray(cell.picture), expected)


def test_the_same_request_gives_the_same_bytes_and_another_seed_does_not(photos, tmp_path):
    first = grid_png(schedule(), photos)
    path = plot_grid(schedule(), [photos], tmp_path / "new" / "grid.png")
    assert path.read_bytes() == first == grid_png(schedule(), str(photos))
    assert grid_png(schedule(), photos, seed=1) != first


def test_nothing_is_drawn_from_the_global_random_state(photos):
    before = torch.get_rng_state()
    grid_png(schedule(), photos)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("epochs", "shown"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (24, [5, 11, 17, 23]), (10**6, None)]
)
def test_by_default_the_last_epoch_of_each_quarter(epochs, shown):
    assert default_epochs(epochs) == (shown or [249_999, 499_999, 749_999, 999_999])


def test_of_many_images_some_are_spread_over_all(photos):
    assert spread("abcdefghij", 3) == ["a", "d", "g"]
    assert spread("ab", 3) == ["a", "b"]
    photos = [photos, photos]
    assert pixels(grid_png(schedule(), photos, rows=2)).shape[1] < pixels(grid_png(schedule(), photos)).shape[1]


def bounds(text):
    return text.left, text.top, text.left + text.font.getlength(text.text), text.top + text.font.size


def test_long_names_and_strange_ones_fit(sheets, photos):
    for number, name in enumerate(("x" * 200 + ".png", "ab\ncd.png", "日本.png", "\udcff.png", "[.png")):
        folder = photos / str(number)
        folder.mkdir()
        (folder / name).write_bytes((photos / "a.png").read_bytes())
        grid_png(schedule(), folder, epochs=[0])
        (original,) = sheets[-1]._bands[0].rows[0]
        assert len(original.caption[0]) <= 20 and original.caption[0].isprintable()
        assert all(bounds(text)[2] <= sheets[-1].width for text in sheets[-1].texts())


@pytest.mark.parametrize("size", [1, 86, 224])
def test_texts_have_room(size):
    """A sheet of one image is as wide as its heading, and a column as the longest name of an operation."""
    image = torch.zeros(1, size, size, dtype=torch.uint8)
    captions = [f"{op} −9" for op in OPERATIONS]
    bands = [Band("epoch 999999", "mean strength 9.00", ((Cell(image, captions),) * 3,))] * 2
    sheet = ContactSheet("A title " * 30, bands, "A legend " * 200)
    boxes = [bounds(text) for text in sheet.texts()]
    assert all(right <= sheet.width and low <= sheet.height for _, _, right, low in boxes)
    pairs = [(one, other) for place, one in enumerate(boxes) for other in boxes[:place]]
    assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs)


def test_an_image_that_is_not_square_keeps_its_shape():
    assert Cell(torch.zeros(3, 10, 20, dtype=torch.uint8)).picture.size == (120, 60)


def test_a_photo_may_be_a_smaller_file():
    noise = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sheet = ContactSheet("Photos", [Band("epoch 0", rows=((Cell(noise),),))])
    with Image.open(BytesIO(sheet.jpeg())) as image:
        assert image.format == "JPEG" and image.size == (sheet.width, sheet.height)
    assert len(sheet.jpeg()) < len(sheet.png())


def test_an_image_is_cut_to_its_middle_and_turned_upright(tmp_path):
    """A wide image, red, green, blue from left to right, stored on its side."""
    wide = Image.new("RGB", (30, 10), (0, 255, 0))
    wide.paste((255, 0, 0), (0, 0, 10, 10))
    wide.paste((0, 0, 255), (20, 0, 30, 10))
    wide.save(tmp_path / "wide.png")
    middle = load_image(tmp_path / "wide.png", ImageSpec(10, 3, (0, 0, 0)))
    assert middle.shape == (3, 10, 10) and middle.dtype == torch.uint8
    assert (middle == torch.tensor([0, 255, 0]).view(3, 1, 1)).all()
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 8, 4))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise by 90° to see it upright
    half.save(tmp_path / "turned.png", exif=exif)
    turned = load_image(tmp_path / "turned.png", ImageSpec(8, 1, (0,)))
    np.testing.assert_array_equal(turned[0], np.asarray(half.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_kind_of_image_is_brought_to_the_schedules_channels(tmp_path, mode, channels):
    Image.new(mode, (9, 5)).save(tmp_path / "x.tif")
    assert load_image(tmp_path / "x.tif", ImageSpec(4, channels, (0,) * channels)).shape == (channels, 4, 4)


def test_an_image_of_the_right_size_keeps_its_very_pixels(photos):
    with Image.open(photos / "a.png") as image:
        exact = np.asarray(ImageOps.fit(image, (8, 8)))
    Image.fromarray(exact).save(photos / "exact.png")
    np.testing.assert_array_equal(load_image(photos / "exact.png", ImageSpec(8, 3, (0, 0, 0))).permute(1, 2, 0), exact)


def test_a_hair_of_an_image_needs_no_memory(tmp_path):
    """1 × 60,000 pixels: enlarged as a whole to a side of 2,048 px it would be a quarter of a terabyte."""
    Image.new("L", (1, 60_000)).save(tmp_path / "hair.png")
    assert load_image(tmp_path / "hair.png", ImageSpec(2048, 1, (0,))).shape == (1, 2048, 2048)


def test_images_are_found_below_folders_and_by_name(photos, tmp_path):
    (photos / "deep").mkdir()
    (photos / "a.png").rename(photos / "deep" / "A.PNG")
    for name in (".hidden.png", "notes.txt"):
        (photos / name).write_bytes(b"")
    (tmp_path / "unnamed").write_bytes((photos / "b.png").read_bytes())
    assert find_images([photos, tmp_path / "unnamed"]) == [
        f"{photos}/b.png",
        f"{photos}/c.png",
        f"{photos}/deep/A.PNG",
        f"{tmp_path}/unnamed",
    ]
    assert load_image(tmp_path / "unnamed", ImageSpec(8, 1, (0,))).shape == (1, 8, 8)


def test_what_is_no_image_is_refused_by_name(photos, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((photos / "a.png").read_bytes()[:5000])
    for name in ("text.png", "cut.png"):
        with pytest.raises(RequestError, match=rf"{name} must be an image that Pillow can decode"):
            grid_png(schedule(), [tmp_path / name])
    with pytest.raises(RequestError, match=r"no image file and no folder .*absent"):
        grid_png(schedule(), [tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no image in the folder .*empty; images end in \.png, \.jpg"):
        grid_png(schedule(), [tmp_path / "empty"])


@pytest.mark.parametrize("limit", [300 * 300 - 1, 300 * 300 // 2 - 1])
def test_what_is_too_large_for_pillow_is_refused(photos, monkeypatch, limit):
    """Pillow warns above its limit, and raises above twice the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(RequestError, match=rf"a\.png must have at most {limit:,} pixels"):
        grid_png(schedule(), photos)


REFUSED = {
    "no image": ({"images": []}, "--images PATH"),
    "an epoch too late": ({"epochs": [0, 4]}, "must be 0 to 3 for this schedule, got 4"),
    "an epoch too early": ({"epochs": [-1]}, "must be 0 to 3 for this schedule, got -1"),
    "no epoch": ({"epochs": []}, "at least one epoch"),
    "half an epoch": ({"epochs": [0.5]}, "epochs must be whole numbers"),
    "no row": ({"rows": 0}, "rows must be >= 1, got 0"),
    "no draw": ({"draws": 0}, "draws must be >= 1, got 0"),
    "too much": ({"draws": 50}, "at most 400 augmented images, got '3 rows × 4 epochs × 50 draws'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_request_is_refused(photos, tmp_path, case):
    request, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        plot_grid(schedule(), **({"images": photos, "path": tmp_path / "x.png"} | request))
    assert not (tmp_path / "x.png").exists()


def test_images_that_are_too_large_are_refused(photos):
    with pytest.raises(RequestError, match="at most 8192 px wide, got 100000"):
        grid_png(schedule(100_000), photos)


def test_the_grid_never_overwrites_an_image_that_it_shows(photos):
    before = (photos / "b.png").read_bytes()
    with pytest.raises(RequestError, match=r"b\.png must not be one of the images"):
        plot_grid(schedule(), photos, photos / ".." / "photos" / "b.png")
    assert (photos / "b.png").read_bytes() == before
