"""Batches: one contract for images in memory, on disk, and for two joined kinds."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from spaces.core.errors import RequestError
from trainables.data import FolderImages, TensorImages
from trainables.data.image_folder import decode
from trainables.data.joined import JoinedImages, join

COUNT, SIDE = 23, 6


def pixels(count=COUNT, seed=0):
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def in_memory(tmp_path):
    return TensorImages(pixels(), torch.arange(COUNT))


def on_disk(tmp_path, workers=0):
    files = []
    for index, image in enumerate(pixels()):
        files.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
    return FolderImages(tuple(files), torch.arange(COUNT), SIDE, workers)


def mixed(tmp_path):
    return join(in_memory(tmp_path).subset(torch.arange(9)), on_disk(tmp_path).subset(torch.arange(9, COUNT)))


KINDS = {
    "memory": in_memory,
    "disk": on_disk,
    "mixed": mixed,
    "workers": lambda path: on_disk(path, workers=2),
}


@pytest.fixture(params=KINDS)
def images(request, tmp_path):
    return KINDS[request.param](tmp_path)


def seeded_generator(seed):
    return torch.Generator().manual_seed(seed)


def whole(batches):
    found, labels = zip(*batches, strict=True)
    return torch.cat(found), torch.cat(labels)


def test_in_order_without_generator(images):
    sizes = [len(labels) for _, labels in images.batches(5)]
    assert sizes == [5, 5, 5, 5, 3] and len(images) == COUNT
    found, labels = whole(images.batches(5))
    assert torch.equal(found, pixels()) and torch.equal(labels, torch.arange(COUNT))
    assert found.dtype == torch.uint8 and labels.dtype == torch.int64


def test_shuffled_batches_have_each_image_once(images):
    found, labels = whole(images.batches(4, generator=seeded_generator(1)))
    assert sorted(labels.tolist()) == list(range(COUNT)) and labels.tolist() != list(range(COUNT))
    assert torch.equal(found, pixels()[labels])


def test_the_generator_decides_the_order(images):
    order = torch.randperm(COUNT, generator=seeded_generator(7))
    one, again = (whole(images.batches(4, generator=seeded_generator(7)))[1] for _ in range(2))
    assert torch.equal(one, order) and torch.equal(again, order)  # so all kinds agree
    assert not torch.equal(whole(images.batches(4, generator=seeded_generator(8)))[1], order)
    generator = seeded_generator(7)
    first, second = (whole(images.batches(4, generator=generator))[1] for _ in range(2))
    assert not torch.equal(first, second)


def test_drop_last(images):
    assert [len(labels) for _, labels in images.batches(5, drop_last=True)] == [5] * 4
    assert not list(images.batches(COUNT + 1, drop_last=True))
    assert len(list(images.batches(COUNT, drop_last=True))) == 1


def test_subset_keeps_the_order_it_is_given(images):
    rows = torch.tensor([20, 3, 3, 11])
    part = images.subset(rows)
    found, labels = whole(part.batches(3))
    assert len(part) == 4 and labels.tolist() == part.labels.tolist() == rows.tolist()
    assert torch.equal(found, pixels()[rows])
    assert part.subset(torch.tensor([2, 0])).labels.tolist() == [3, 20]


def test_batches_may_be_written_to(images):
    for found, labels in images.batches(50):
        found.zero_()
        labels.zero_()
    assert torch.equal(whole(images.batches(50))[0], pixels()) and images.labels[-1] == COUNT - 1


def test_global_random_state_is_left_alone(images):
    state = torch.get_rng_state()
    whole(images.batches(5, generator=seeded_generator(0)))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_permutation_is_drawn_at_the_call(images):
    generator = seeded_generator(0)
    images.batches(5, generator=generator)
    expected = seeded_generator(0)
    torch.randperm(COUNT, generator=expected)
    assert torch.equal(generator.get_state(), expected.get_state())


def test_pickling_and_moving(images):
    again = pickle.loads(pickle.dumps(images)).to(torch.device("cpu"))
    assert torch.equal(whole(again.batches(6))[0], pixels())


def test_no_batch_without_images(images):
    with pytest.raises(RequestError, match="batch size must be >= 1, got 0"):
        images.batches(0)
    assert not list(images.subset(torch.tensor([], dtype=torch.int64)).batches(4))


def test_join_takes_the_simplest_form(tmp_path):
    memory, disk = in_memory(tmp_path), on_disk(tmp_path)
    assert isinstance(join(memory, memory), TensorImages) and isinstance(join(disk, disk), FolderImages)
    assert isinstance(join(disk, on_disk(tmp_path, workers=1)), JoinedImages)
    assert whole(join(memory, disk).batches(9))[1].tolist() == [*range(COUNT), *range(COUNT)]


@pytest.mark.parametrize(
    ("found", "labels", "message"),
    [
        (
            pixels().float(),
            torch.arange(COUNT),
            r"images must be \(N, C, H, W\) torch.uint8, got .*float32",
        ),
        (pixels()[0], torch.arange(3), "images must be"),
        (pixels(), torch.arange(3), r"labels must be \(23,\) torch.int64 on cpu"),
        (pixels(), torch.arange(COUNT).int(), "labels must be .* got .*int32"),
    ],
)
def test_tensor_images_are_checked(found, labels, message):
    with pytest.raises(RequestError, match=message):
        TensorImages(found, labels)


def test_folder_images_are_checked():
    with pytest.raises(RequestError, match="labels must be"):
        FolderImages(("a.png",), torch.arange(2), 8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


def test_center_is_cut_out(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (8, 13, 3), dtype=np.uint8)
    expected = torch.from_numpy(wide[:, 2:10].copy()).permute(2, 0, 1)
    assert torch.equal(decode(save(tmp_path / "wide.png", wide), 8), expected)
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    assert torch.equal(decode(save(tmp_path / "tall.png", tall), 8), expected.transpose(1, 2))


def test_shorter_side_is_resized(tmp_path):
    halves = np.zeros((20, 40, 3), dtype=np.uint8)
    halves[:, 20:] = 200
    for size in (10, 30):
        found = decode(save(tmp_path / "halves.png", halves), size)
        assert found.shape == (3, size, size)
        assert found[:, :, 0].eq(0).all() and found[:, :, -1].eq(200).all()
    from torchvision.transforms.v2 import functional as T

    noise = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    reference = T.center_crop(T.resize(Image.fromarray(noise), [16]), [16, 16])
    assert torch.equal(decode(save(tmp_path / "noise.png", noise), 16)[0], T.pil_to_tensor(reference)[0])


def test_every_kind_of_image_becomes_rgb(tmp_path):
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    found = decode(save(tmp_path / "gray.png", gray), 8)
    assert found.shape == (3, 8, 8) and torch.equal(found[2], torch.from_numpy(gray))
    alpha = np.full((8, 8, 4), 7, dtype=np.uint8)
    assert decode(save(tmp_path / "alpha.png", alpha), 8).eq(7).all()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["no image", "cut", "gone"])
def test_damaged_file_is_named(tmp_path, workers, damage):
    images = on_disk(tmp_path, workers)
    file = tmp_path / "7.png"
    file.write_bytes({"no image": b"hello", "cut": file.read_bytes()[:70], "gone": b""}[damage])
    if damage == "gone":
        file.unlink()
    with pytest.raises(RequestError, match=r"7\.png must be an image that Pillow can decode .*; replace or remove it$"):
        whole(images.batches(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_on_the_device(images):
    moved = images.to("cuda")
    found, labels = whole(moved.batches(4, generator=seeded_generator(3)))
    assert found.is_cuda and labels.is_cuda and not moved.labels.is_cuda
    assert torch.equal(found.cpu(), pixels()[labels.cpu()])
    assert moved.subset(torch.tensor([4, 2])).labels.tolist() == [4, 2]
