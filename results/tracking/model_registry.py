"""Trained networks as versions of registered models, in MLflow's registry and in a folder that MLflow can load.

A network is stored as PyTorch's exported graph (`torch.export`, a `.pt2` file): it loads without roletune, and nothing
is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results.tracking.quiet import BRISK
from results.tracking.store import one_line
from spaces import Schedule, WorkError

if TYPE_CHECKING:  # importing them takes seconds
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray
    from torch import nn

EXAMPLES = 2
"""Images in a model's input example; with a single one, the exported graph would accept only single images."""


def save_model(folder: Path, network: nn.Module, images: NDArray[np.float32], classes: int, policy: Schedule) -> Path:
    """Write `network` as an MLflow model, whole or not at all: signature, input example, its policy beside it.

    Args:
        folder: Folder to write; what is there is replaced.
        network: Network on the CPU, from images (B, C, H, W) in [0, 1] to logits (B, classes).
        images: Input example, shape (`EXAMPLES`, C, H, W).
        classes: Number of classes.
        policy: Policy that it was trained with; written as `policy.ROLE.json`, learned weights in a file beside it.

    Returns:
        `folder`.

    Raises:
        WorkError: If PyTorch cannot export the network, or the files cannot be written.
    """
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = TensorSpec(np.dtype("float32"), (-1, *images.shape[1:]))
    outputs = TensorSpec(np.dtype("float32"), (-1, classes))
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with BRISK.calls(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MLflow and PyTorch say to each other
            mlflow.pytorch.save_model(
                network,
                fresh,
                signature=ModelSignature(Schema([inputs]), Schema([outputs])),
                input_example=images,
                pip_requirements=[f"{name}=={_version(name)}" for name in ("mlflow", "torch", "numpy")],
                serialization_format="pt2",
            )
        policy.save(fresh / f"policy.{policy.role}.json")
        shutil.rmtree(folder, ignore_errors=True)
        return fresh.rename(folder)
    except Exception as error:  # a user's network may fail in any way
        shutil.rmtree(fresh, ignore_errors=True)
        raise WorkError(f"the {policy.role} is no MLflow model: {one_line(str(error), 200)}") from error


def register(client: MlflowClient, experiment_id: str, run_id: str, data: Mapping[str, Any]) -> None:
    """Make the model in a folder the next version of a registered model, unless the run has one already.

    Args:
        client: Client of the store.
        experiment_id: Experiment of the run.
        run_id: Run of the training.
        data: `path` of the folder, `name` of the registered model, `tags` and `description` of the version, and
            `metrics` as (name, value, time in ms since 1970, step).

    Raises:
        LookupError: If the server has no registry, or one that does not know MLflow 3's models.
    """
    from mlflow.exceptions import MlflowException

    try:
        _register(client, experiment_id, run_id, data)
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        raise LookupError("this server has no registry for it; MLflow 3 has") from error


def _register(client: MlflowClient, experiment_id: str, run_id: str, data: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    name, tags = data["name"], data["tags"]
    if any(version.run_id == run_id for version in client.search_model_versions(f"name = '{name}'")):
        return
    made = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    model = made[0] if made else client.create_logged_model(experiment_id, tags["role"], run_id, tags)
    client.log_model_artifacts(model.model_id, data["path"])
    client.finalize_logged_model(model.model_id, "READY")
    metrics = [Metric(key, value, at, step, model.model_id) for key, value, at, step in data["metrics"]]
    client.log_batch(run_id, metrics=metrics)
    try:
        client.create_registered_model(name, description="Trained with the policy that a roletune sweep found.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        model.artifact_location,  # not models:/ID, which MLflow would look up in its global store
        run_id,
        tags,
        description=data["description"],
        await_creation_for=0,
        model_id=model.model_id,
    )
    place = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": place})  # the page's link to it


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(name: str, tags: Mapping[str, str], shape: tuple[int, ...]) -> str:
    """Return a version's description in Markdown."""
    accuracy = f" Accuracy on the test images: {100 * float(tags['accuracy']):.2f} %." if "accuracy" in tags else ""
    return (
        f"The {tags['role']} of sweep {tags['sweep']}, trained in full with the policy found for it, which lies among "
        f"the files as `policy.{tags['role']}.json`.{accuracy}\n\n"
        "```python\n"
        f'model = mlflow.pytorch.load_model("models:/{name}/VERSION")\n'
        f"logits = model(images)  # float32 in [0, 1], (B, {', '.join(map(str, shape))}); normalized inside\n"
        "```\n\n"
        "It is an exported graph, in evaluation mode as it is: `eval()` and `train()` are refused.\n"
    )


def _version(package: str) -> str:
    """The version of a package without the build, such as `+cpu`, which no index has."""
    return importlib.metadata.version(package).partition("+")[0]
