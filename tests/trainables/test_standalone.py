"""`trainables` works without Ray and MLflow, except for one module."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import trainables

ROOT = Path(trainables.__file__).parents[1]

CODE = """
import importlib, json, pkgutil, sys
import trainables
names = [module.name for module in pkgutil.walk_packages(trainables.__path__, "trainables.")]
names.remove("trainables.ray_trainable")
for name in names:
    importlib.import_module(name)
loaded = sorted({name.partition(".")[0] for name in sys.modules})

for name in ("ray", "mlflow", "optuna"):
    sys.modules[name] = None  # whoever imports it from here on fails
import torch
from spaces import Entry, Genome, Policy
from trainables import Recipe, Task, TrainedTeacher
from trainables.data import DataSet, TensorImages
images = TensorImages(torch.randint(0, 256, (32, 1, 8, 8)).to(torch.uint8), torch.arange(32) % 2)
data = DataSet("noise", 2, 1, 8, (0.5,), (0.3,), 1, False, images, images, images)
recipe = Recipe(batch_size=16)
teacher = Task("teacher", "mlp", data, recipe, epochs=1).learner(Genome(), seed=0)
teacher.step()
trained = TrainedTeacher("mlp", teacher.model.state_dict())
task = Task("student", "cnn", data, recipe, epochs=1, validation=images, teacher=trained)
metrics = task.train_epoch(task.learner(Genome(Policy((Entry("Rotate", 5, 5),))), seed=0))
heavy = [name for name in ("torch._dynamo", "sympy", "sklearn", "torchvision") if name in sys.modules]
print(json.dumps({"imported": names, "loaded": loaded, "metrics": metrics, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def bare():
    """The output of a process that imports everything but `ray_trainable`, then trains while Ray cannot be imported."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_imports_neither_ray_nor_mlflow(bare):
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "trainables").rglob("*.py"))
    modules = {".".join(path.parts) for path in paths if path.name != "__init__"} - {"trainables.ray_trainable"}
    assert modules <= set(bare["imported"])
    assert "torch" in bare["loaded"]
    assert not {"ray", "mlflow", "optuna", "search", "results"} & set(bare["loaded"])


def test_trains_without_them(bare):
    assert {"kd_loss", "validation_accuracy", "policy/Rotate/strength"} <= bare["metrics"].keys()


def test_training_loads_nothing_that_takes_seconds(bare):
    assert not bare["heavy"]
