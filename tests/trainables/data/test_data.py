"""Every data set, read from files in their original formats: one contract, and each one's particulars."""

import gzip
import pickle
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from spaces.core.errors import RequestError, WorkError
from trainables.data import DATA, DataSet, FolderImages, TensorImages, load
from trainables.data.digits import MEAN, STD
from trainables.data.image_folder import decode

FOLDERS = {
    "mnist": "MNIST/raw",
    "fashionmnist": "FashionMNIST/raw",
    "svhn": "",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
}
KINDS = {name: getattr(datasets, kind) for name, kind in [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")]}


def drawn(count, classes, shape, seed):
    """Random pixels (count, *shape), and labels that have each class equally often."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, *shape), dtype=np.uint8), random.permutation(np.arange(count) % classes)


def write_mnist(folder):
    """IDX: a big-endian magic number (type 8: bytes; rank), the sizes, the bytes."""
    folder.mkdir(parents=True)
    parts = []
    for prefix, count, seed in (("train", 60, 0), ("t10k", 20, 1)):
        images, labels = drawn(count, 10, (28, 28), seed)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            content = head + array.astype(np.uint8).tobytes()
            (folder / name).write_bytes(content)
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        parts.append((images[:, None], labels))
    return parts


def write_svhn(folder, monkeypatch):
    """MATLAB: X (H, W, C, N), y (N, 1) in which 10 stands for the digit 0."""
    parts = []
    for part, count, seed in (("train", 60, 0), ("test", 20, 1)):
        images, labels = drawn(count, 10, (3, 32, 32), seed)
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})
        parts.append((images, labels))
    lists = {part: [*entry[:2], None] for part, entry in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)  # these files are not the published ones
    return parts


def python2_pickle(value):
    """Protocol 2 as Python 2 wrote it, byte strings and the old name of NumPy's module included."""
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(map(python2_pickle, value.shape)) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        content = value.tobytes()
        return empty + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", len(content)) + content + b"tb"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2_pickle(part) for item in value.items() for part in item) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2_pickle, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    return b"J" + struct.pack("<i", value)


def write_cifar(folder, name, monkeypatch):
    """A pickled dictionary a file: `data` (N, 3072), each row red, then green, then blue."""
    folder.mkdir(parents=True)
    kind = KINDS[name]
    classes, key = (10, "labels") if name == "cifar10" else (100, "fine_labels")
    parts = []
    for files, count, seed in ((kind.train_list, 500, 0), (kind.test_list, 200, 1)):
        images, labels = drawn(count, classes, (3, 32, 32), seed)
        step = count // len(files)
        for index, (file, _) in enumerate(files):
            rows = slice(index * step, (index + 1) * step)
            entry = {
                "batch_label": "tiny",
                "data": images[rows].reshape(step, 3072),
                key: labels[rows].tolist(),
            }
            if name == "cifar100":
                entry["coarse_labels"] = (labels[rows] // 5).tolist()
            (folder / file).write_bytes(b"\x80\x02" + python2_pickle(entry) + b".")
        parts.append((images, labels))
    names = {kind.meta["key"]: [f"class{index}" for index in range(classes)]}
    (folder / kind.meta["filename"]).write_bytes(b"\x80\x02" + python2_pickle(names) + b".")
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(kind, files, [[file, None] for file, _ in getattr(kind, files)])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": None})
    return parts


def write_folder(root, parts=(("train", 6), ("test", 2)), classes=("ant", "bee"), size=16):
    for seed, (part, count) in enumerate(parts):
        images, _ = drawn(count * len(classes), 1, (size, size, 3), seed)
        for index, image in enumerate(images):
            folder = root / part / classes[index % len(classes)]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index:03}.png")


def write(name, root, monkeypatch):
    """Write the set `name`, tiny, below `root`: [(images (N, C, H, W), labels (N,)) of train, of test]."""
    if name in ("mnist", "fashionmnist"):
        return write_mnist(root / FOLDERS[name])
    if name == "svhn":
        return write_svhn(root, monkeypatch)
    return write_cifar(root / FOLDERS[name], name, monkeypatch) if name in KINDS else write_folder(root)


def pairs(images):
    """Each image's bytes with its label, as a set."""
    return {
        (image.numpy().tobytes(), int(label))
        for batch in images.batches(64)
        for image, label in zip(*batch, strict=True)
    }


@pytest.fixture(autouse=True)
def _no_package(tmp_path, monkeypatch):
    """No system package with Fashion-MNIST's files."""
    monkeypatch.setattr("trainables.data.torchvision_sets.DEBIAN_FASHION", tmp_path / "absent")


@pytest.fixture(params=sorted(DATA))
def data(request, tmp_path, monkeypatch):
    write(request.param, tmp_path, monkeypatch)
    options = {"size": 16, "validation": 4} if request.param == "imagefolder" else {}
    if request.param == "cifar100":
        options = {"validation": 100}
    return load(request.param, root=tmp_path, **options)


def test_contract(data):
    source = DATA[data.name]
    assert data.channels == source.channels and data.flip == source.flip
    assert (source.classes or 2, source.size or 16) == (data.classes, data.size)
    for images in (data.train, data.validation, data.test, data.full):
        assert images.labels.dtype == torch.int64 and images.labels.shape == (len(images),)
        assert set(images.labels.tolist()) == set(range(data.classes))
        batch, labels = next(images.batches(4))
        assert batch.dtype == torch.uint8 and batch.shape == (4, data.channels, data.size, data.size)
        assert torch.equal(labels, images.labels[:4])


def test_parts_are_disjoint_and_full_is_their_union(data):
    train, validation, test, full = map(pairs, (data.train, data.validation, data.test, data.full))
    assert full == train | validation and len(data.full) == len(data.train) + len(data.validation)
    if data.name != "digits":  # random images are all different
        assert not train & validation and not full & test


def test_pickled_and_moved(data):
    again = pickle.loads(pickle.dumps(data)).to("cpu")
    assert replace(again, train=data.train, validation=data.validation, test=data.test) == data
    assert pairs(again.validation) == pairs(data.validation)


@pytest.mark.parametrize("name", [name for name in DATA if name != "imagefolder"])
def test_memory_holds_bytes_only(name, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    data = load(name, root=tmp_path, train=100 if name == "cifar100" else 20)
    for images in (data.train, data.validation, data.test):
        assert isinstance(images, TensorImages) and images.images.is_contiguous()
        bytes_per_image = data.channels * data.size * data.size
        assert images.images.untyped_storage().nbytes() == len(images) * bytes_per_image


@pytest.mark.parametrize("name", FOLDERS)
def test_torchvision_files_are_read_as_they_are(name, tmp_path, monkeypatch):
    (train, train_labels), (test, test_labels) = write(name, tmp_path, monkeypatch)
    data = load(name, root=tmp_path)
    assert torch.equal(data.test.images, torch.from_numpy(test))
    assert data.test.labels.tolist() == test_labels.tolist()
    assert pairs(data.full) == pairs(TensorImages(torch.from_numpy(train), torch.from_numpy(train_labels)))


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_files_name_set_folder_and_option(name, tmp_path):
    with pytest.raises(RequestError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    assert f"'{name}'" in message and str(tmp_path / FOLDERS[name]) in message and "\n" not in message
    assert "`data.download: true` (or `--set data.download=true`)" in message


@pytest.mark.parametrize("name", KINDS)
def test_cifar_that_is_not_the_published_one_is_never_unpickled(name, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        write(name, tmp_path, patch)  # the sums are checked again from here on
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(RequestError, match=r"must be in .*, undamaged"):
        load(name, root=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_damaged_files(name, tmp_path, monkeypatch):
    write(name, tmp_path, monkeypatch)
    file = tmp_path / ("MNIST/raw/train-images-idx3-ubyte" if name == "mnist" else "train_32x32.mat")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RequestError, match=f"'{name}' in .* must be undamaged .*remove its files"):
        load(name, root=tmp_path)


def test_mnist_with_fewer_labels_than_images(tmp_path):
    write_mnist(tmp_path / "MNIST/raw")
    file = tmp_path / "MNIST/raw/train-labels-idx1-ubyte"
    file.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 30) + file.read_bytes()[8:38])
    with pytest.raises(RequestError, match=r"must be undamaged .*labels must be"):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_is_fetched_unless_asked(name, tmp_path, monkeypatch):
    calls = []

    def offline(self):
        calls.append(name)
        raise OSError("no route to host")

    for kind in ("MNIST", "FashionMNIST", "SVHN", "CIFAR10", "CIFAR100"):
        monkeypatch.setattr(getattr(datasets, kind), "download", offline)
    with pytest.raises(RequestError):
        load(name, root=tmp_path)
    assert not calls
    with pytest.raises(WorkError, match=f"'{name}' could not be downloaded to .*: no route to host"):
        load(name, root=tmp_path, download=True)
    assert calls == [name]


def test_digits_levels_and_statistics():
    data = load("digits")
    levels = {round(v * 255 / 16) for v in range(17)}
    assert set(data.full.images.unique().tolist()) == levels
    pixels = data.full.images.double() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std(correction=0)), 4)) == (MEAN[0], STD[0])


def test_digits_test_part_is_fixed_and_the_pool_balanced():
    tests = [load("digits", seed=seed, **options).test for seed, options in [(0, {}), (7, {"train": 50})]]
    assert torch.equal(tests[0].images, tests[1].images) and len(tests[0]) == 597
    assert load("digits").full.labels.bincount().tolist() == [120] * 10
    from sklearn.datasets import load_digits

    every = np.bincount(load_digits().target)
    assert (every - tests[0].labels.bincount().numpy() == 120).all()


def test_reduced_sets():
    data = load("digits", train=400)
    assert data.train.labels.bincount().tolist() == [40] * 10
    assert len(data.validation) == 800 and len(data.full) == 1200
    data = load("digits", train=400, validation=100)
    assert (len(data.train), len(data.validation)) == (400, 100)
    assert (len(load("digits").train), len(load("digits").validation)) == (1080, 120)


def test_seed_decides():
    one, again, other = (load("digits", train=200, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.train.images, again.train.images)
    assert not torch.equal(one.train.images, other.train.images)


def test_folder_with_validation_part_of_its_own(tmp_path):
    write_folder(tmp_path, parts=(("train", 6), ("val", 3), ("test", 2)))
    data = load("imagefolder", root=tmp_path, size=16)
    assert (len(data.train), len(data.validation), len(data.test), len(data.full)) == (12, 6, 4, 18)
    assert (data.crop, data.flip, data.mean) == (2, True, (0.485, 0.456, 0.406))
    reduced = load("imagefolder", root=tmp_path, size=16, train=4, validation=2)
    assert reduced.train.labels.tolist() == [0, 0, 1, 1] and reduced.validation.labels.tolist() == [0, 1]
    for name in ("deep/X.PNG", "._hidden.png", "notes.txt"):
        file = tmp_path / "train/ant" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((tmp_path / "train/ant/000.png").read_bytes())
    assert len(load("imagefolder", root=tmp_path, size=16).train) == 13
    own = {
        (decode(str(file), 16).numpy().tobytes(), label)
        for label, name in enumerate(("ant", "bee"))
        for file in (tmp_path / "val" / name).iterdir()
    }
    assert len(own) == 6 and pairs(reduced.validation) <= own
    assert load("imagefolder", root=tmp_path).size == 224
    with pytest.raises(RequestError, match=r"data\.validation must be at most 6"):
        load("imagefolder", root=tmp_path, validation=7)


def test_a_folder_is_decoded_once_if_it_is_small_enough(tmp_path, monkeypatch):
    """The same images in the same order; test images, which are read once for each network, stay on disk."""
    write_folder(tmp_path, parts=(("train", 6), ("test", 2)))
    options = {"root": tmp_path, "size": 16, "validation": 4}
    kept = load("imagefolder", **options)
    monkeypatch.setattr("trainables.data.loading.MOST_IN_MEMORY", 12 * 3 * 16 * 16 - 1)
    streamed = load("imagefolder", **options)
    for part in ("train", "validation"):
        ours, theirs = getattr(kept, part), getattr(streamed, part)
        assert isinstance(ours, TensorImages) and isinstance(theirs, FolderImages)
        (images, labels), (same, same_labels) = (next(each.batches(99)) for each in (ours, theirs))
        assert torch.equal(images, same) and torch.equal(labels, same_labels)
    assert isinstance(kept.test, FolderImages)
    monkeypatch.setattr("trainables.data.loading.MOST_IN_MEMORY", 12 * 3 * 16 * 16)
    assert isinstance(load("imagefolder", **options).train, TensorImages)


def test_a_damaged_file_of_a_small_folder_is_named_at_once(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "train/ant/000.png").write_bytes(b"no image")
    with pytest.raises(RequestError, match=r"train/ant/000\.png must be an image that Pillow can decode"):
        load("imagefolder", root=tmp_path, size=16)


def test_folder_errors(tmp_path):
    with pytest.raises(RequestError, match=r"must be in .*/train/CLASS/.*does not exist; .*data\.root"):
        load("imagefolder", root=tmp_path)
    write_folder(tmp_path, parts=(("train", 6),))
    with pytest.raises(RequestError, match=r"test does not exist"):
        load("imagefolder", root=tmp_path)
    write_folder(tmp_path, parts=(("test", 2),), classes=("ant", "cat"))
    with pytest.raises(RequestError, match=r"test must have the same classes as train.*missing: bee; extra: cat"):
        load("imagefolder", root=tmp_path)
    (tmp_path / "test/cat").rename(tmp_path / "test/bee")
    with pytest.raises(RequestError, match=r"data\.size must be an integer >= 1"):
        load("imagefolder", root=tmp_path, size=0)
    for file in (tmp_path / "test/bee").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(RequestError, match=r"test/bee must contain an image"):
        load("imagefolder", root=tmp_path)
    write_folder(tmp_path, parts=(("val", 1), ("validation", 1)))
    with pytest.raises(RequestError, match="only one of validation/ and val/"):
        load("imagefolder", root=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "digit"}, "unknown data set 'digit'; did you mean 'digits'?"),
        ({"name": "CIFAR10"}, "did you mean 'cifar10'?"),
        ({"train": 1000, "validation": 300}, "at most 1200 images"),
        ({"train": 1195}, "each at least 10"),
        ({"train": 0}, "data.train must be an integer >= 1, got 0"),
        ({"validation": -3}, "data.validation must be an integer >= 1, got -3"),
        ({"train": 40.5}, "got 40.5"),
        ({"validation": 9}, "data.validation must be at least 10, the number of classes, got 9"),
        (
            {"size": 28},
            "data.size must be 8 for data set 'digits', got 28; leave `data.size` out",
        ),
        ({"workers": -1}, "data.workers must be >= 0"),
        ({"seed": -1}, "must be >= 0, got -1"),
    ],
)
def test_wrong_requests(options, message):
    with pytest.raises(RequestError) as caught:
        load(**{"name": "digits"} | options)
    assert message in str(caught.value)


def test_own_size_may_be_said():
    assert load("digits", size=8).size == 8


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's package with factories."""
    folder = tmp_path / "roletune_user_data"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import dataclasses\n"
        "from trainables.data import load\n"
        "seen = {}\n"
        "def full(**options):\n    seen.update(options)\n    return load('digits', seed=options['seed'])\n"
        "def few(root, seed=0):\n    seen.update(root=root, seed=seed)\n    return load('digits')\n"
        "def wrong():\n    return 3\n"
        "def failing():\n    raise KeyError('labels')\n"
        "def needy(path):\n    return path\n"
        "def damaged():\n    return dataclasses.replace(load('digits'), classes=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "roletune_user_data"
    sys.modules.pop("roletune_user_data", None)


def test_factory_takes_what_it_has_arguments_for(package, tmp_path):
    data = load(f"{package}:few", root=tmp_path, seed=3)
    assert isinstance(data, DataSet)
    assert sys.modules[package].seen == {"root": tmp_path, "seed": 3}
    load(f"{package}.full", train=20, size=8)
    assert sys.modules[package].seen == {
        **{"root": "data", "train": 20, "validation": None, "seed": 0, "size": 8},
        **{"download": False, "workers": 0},
    }


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("few", {"train": 20}, "`data.train` must be left out, since the data set"),
        ("wrong", {}, "must return a trainables.data.DataSet, got 'int'"),
        ("failing", {}, "failing raised KeyError: 'labels'"),
        ("needy", {}, "missing 1 required positional argument: 'path'"),
        ("damaged", {}, "train labels of data set 'digits' must be in 0 … 8, got '0 … 9'"),
        ("seen", {}, "a factory must have a signature"),
    ],
)
def test_factories_at_fault(package, factory, options, message):
    with pytest.raises(RequestError) as caught:
        load(f"{package}:{factory}", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "classes of data set 'digits' must be >= 2"),
        ({"crop": -1}, "crop"),
        ({"channels": 2}, "must be 1 or 3"),
        ({"std": (0.0,)}, "with std > 0"),
        ({"mean": (0.1, 0.2)}, "must have length 1"),
        (
            {"test": TensorImages(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0).long())},
            "at least 1 image",
        ),
    ],
)
def test_a_data_set_is_checked(change, message):
    with pytest.raises(RequestError, match=message):
        replace(load("digits"), **change)


def test_registry_says_what_each_set_is():
    assert list(DATA) == [source.name for source in DATA.values()]
    for source in DATA.values():
        assert source.about and len(source.mean) == len(source.std) == source.channels
        assert pickle.loads(pickle.dumps(source)).name == source.name
