"""Fashion-MNIST from the compressed IDX files of a system package."""

import gzip
import struct

import numpy as np
import pytest
import torch

from spaces import RequestError
from trainables.data import DATA
from trainables.data.source import ReadOptions


def idx(array):
    """IDX: a big-endian magic number (type 8: bytes; rank), the sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package's folder with 60 and 20 images, and what is in it."""
    folder, parts = tmp_path / "package", {}
    folder.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        random = np.random.default_rng(count)
        images, labels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        parts[part] = images, labels
    monkeypatch.setattr("trainables.data.torchvision_sets.DEBIAN_FASHION", folder)
    return folder, parts


@pytest.fixture
def read(tmp_path, package):
    """Reads the set with an empty root."""
    return lambda: DATA["fashionmnist"].read(ReadOptions(tmp_path / "root"))


def test_undamaged_files_are_read_as_they_are(read, package):
    pool, parts = read(), package[1]
    for part, (images, labels) in zip((pool.train, pool.test), parts.values(), strict=True):
        assert torch.equal(part.images, torch.from_numpy(images[:, None]))
        assert part.labels.tolist() == labels.tolist()
    assert (pool.classes, pool.size) == (10, 28)


def test_files_below_the_root_come_first(read, tmp_path):
    (tmp_path / "root/FashionMNIST/raw").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"root/FashionMNIST/raw, undamaged"):
        read()


def whole(array):
    return gzip.compress(idx(array))


IMAGES = np.zeros((60, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (whole(IMAGES)[:50], "EOFError"),  # the download was cut off
        (gzip.compress(idx(IMAGES)[:5000]), "ValueError: cannot reshape"),  # the file was, before compression
        (gzip.compress(idx(IMAGES)[:6]), "ValueError"),
        (whole(np.zeros(60, np.uint8)), "train-images-idx3-ubyte.gz is no IDX file of 3 dimensions of bytes"),
        (gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 28, 28) + bytes(60 * 784)), "ValueError"),
        (idx(IMAGES), "BadGzipFile"),
        (whole(IMAGES[:50]), r"labels must be \(50,\)"),
        (whole(IMAGES[:, :8, :8]), r"60 images of \(8, 8\) px"),
        (None, "FileNotFoundError"),
    ],
    ids=["cut", "short before", "no header", "labels", "too large", "not gzip", "count", "size", "missing"],
)
def test_damaged_files(read, package, content, why):
    file = package[0] / "train-images-idx3-ubyte.gz"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(RequestError, match=rf"(?s)'fashionmnist' in .*package must be undamaged.*{why}") as caught:
        read()
    assert "install the package again, or set data.root" in str(caught.value)
