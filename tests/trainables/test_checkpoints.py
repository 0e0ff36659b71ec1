"""Weight files: round trips, and no code execution when a file is loaded."""

import pickle
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces import RequestError
from trainables.checkpoints import check_weights, load_weights, save_weights
from trainables.models import build_model

SHAPE = {"classes": 5, "channels": 3, "size": 8}


def network(seed=0):
    return build_model("resnet8", seed=seed, **SHAPE)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
def test_safetensors_round_trip(tmp_path, name, assert_same):
    weights = build_model(name, seed=0, **SHAPE).state_dict()
    path = save_weights(tmp_path / "deep" / "teacher.safetensors", weights)
    assert path == tmp_path / "deep" / "teacher.safetensors"
    assert_same(load_weights(path), {**weights})
    assert_same(safetensors.torch.load_file(path), {**weights})
    other = build_model(name, seed=1, **SHAPE)
    check_weights(other, load_weights(path), "x")
    other.load_state_dict(load_weights(path))
    assert_same({**other.state_dict()}, {**weights})


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__" and name.isprintable()),
        st.tuples(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(DTYPES)),
        max_size=5,
    ),
    st.integers(0, 2**31),
)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_any_tensors_come_back(shapes, seed):
    draw = torch.Generator().manual_seed(seed)
    weights = {name: torch.randint(0, 2, shape, generator=draw).to(dtype) for name, (shape, dtype) in shapes.items()}
    with tempfile.TemporaryDirectory() as folder:
        back = load_weights(save_weights(Path(folder) / "w.safetensors", weights))
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value)


def test_other_layouts_and_shared_memory(tmp_path, assert_same):
    """Channels-last weights, views of one tensor, and weights that a network ties."""
    base = torch.arange(24.0).view(2, 3, 2, 2)
    tied = nn.Linear(3, 3)
    weights = {
        "last": base.to(memory_format=torch.channels_last),
        "turned": base[:, 0, 0].T,
        "part": base[1:],
        "one": tied.weight,
        "two": tied.weight,
    }
    back = load_weights(save_weights(tmp_path / "w.safetensors", weights))
    assert_same(back, weights)
    assert all(value.is_contiguous() for value in back.values())
    assert base[0, 0, 0, 0] == 0 and not back["one"].requires_grad


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_round_trip(tmp_path, zipped, assert_same):
    weights = network().state_dict()
    torch.save(weights, tmp_path / "teacher.pt", _use_new_zipfile_serialization=zipped)
    assert_same({**load_weights(tmp_path / "teacher.pt")}, {**weights})


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(value, path):
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("save", [torch.save, pickled])
@pytest.mark.parametrize("name", ["teacher.pt", "teacher.bin", "teacher.safetensors"])
def test_code_is_refused_and_not_executed(tmp_path, save, name):
    save({**network().state_dict(), "more": Code(tmp_path / "executed")}, tmp_path / name)
    with pytest.raises(RequestError, match="must contain plain weights"):
        load_weights(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Code(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()  # it would have


def test_whole_networks_are_refused(tmp_path):
    torch.save(network(), tmp_path / "teacher.pt")
    with pytest.raises(RequestError) as caught:
        load_weights(tmp_path / "teacher.pt")
    assert "save it with torch.save(model.state_dict()) or as safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"model": {"w": torch.zeros(2)}}, {"epoch": 3}])
def test_anything_but_names_to_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "teacher.pt")
    with pytest.raises(RequestError, match=r"teacher.pt must contain a dict of names to tensors, got '"):
        load_weights(tmp_path / "teacher.pt")


def test_no_file(tmp_path):
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(RequestError, match=r"the weights file must exist, got .*; check teacher\.weights"):
            load_weights(path)


@pytest.mark.parametrize("name", ["teacher.safetensors", "teacher.pt", "legacy.pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path, name, share):
    path = write(tmp_path / name, network().state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RequestError, match="must contain plain weights") as caught:
        load_weights(str(path))
    assert "\n" not in str(caught.value)


def write(path, weights):
    if path.suffix == ".safetensors":
        return save_weights(path, weights)
    torch.save(weights, path, _use_new_zipfile_serialization=path.stem != "legacy")
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["teacher.safetensors", "teacher.pt", "legacy.pt"])
def test_damaged_files_give_tensors_or_one_line(tmp_path, name):
    path = write(tmp_path / name, nn.Linear(2, 2).state_dict())
    content, draw = path.read_bytes(), torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(150):
        places = torch.randint(0, len(content), (3,), generator=draw).tolist()
        damaged = bytearray(content)
        for place in places:
            damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert all(isinstance(value, torch.Tensor) for value in load_weights(path).values())
        except RequestError as error:
            refused += 1
            assert "\n" not in str(error) and name in str(error)
    assert refused > 20


def test_fitting_weights_pass():
    check_weights(network(), network(seed=1).state_dict(), "x")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda w: w.pop("fc.bias"), "fc.bias is missing"),
        (lambda w: w.update(head=torch.zeros(1)), "head is not in the model"),
        (lambda w: w.update({"fc.weight": torch.zeros(7, 64)}), "fc.weight is (7, 64), not (5, 64)"),
        (lambda w: w.update({"fc.bias": torch.zeros(5, 1)}), "fc.bias is (5, 1), not (5,)"),
    ],
)
def test_differences_are_named(change, fault):
    weights = dict(network().state_dict())
    change(weights)
    with pytest.raises(RequestError) as caught:
        check_weights(network(), weights, "teacher.weights (w.pt)")
    assert str(caught.value) == f"teacher.weights (w.pt) must have the names and shapes of the model: {fault}"


def test_the_first_differences_are_listed_and_the_rest_counted():
    weights = dict(network().state_dict())
    for name in ("bn1.bias", "bn1.weight", "conv1.weight", "fc.bias"):
        weights[f"module.{name}"] = weights.pop(name)
    with pytest.raises(RequestError) as caught:
        check_weights(network(), weights, "w.pt")
    listed = "bn1.bias is missing; bn1.weight is missing; conv1.weight is missing; fc.bias is missing"
    assert str(caught.value) == f"w.pt must have the names and shapes of the model: {listed} (and 4 more)"
