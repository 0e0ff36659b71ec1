"""Sample images of a sweep's data, for its report."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from results.reporting.sweep_folder import SETTINGS, SweepFolder
from search.config.sections import DataConfig
from spaces import RequestError
from trainables import data as datasets
from trainables.data import DataSet

COUNT = 6


def samples(data: DataSet) -> Tensor:
    """Return the first validation image of up to `COUNT` classes, spread over all: (B, C, H, W) uint8."""
    labels = data.validation.labels
    classes = labels.unique()
    sampled = classes[torch.arange(min(COUNT, len(classes))) * len(classes) // min(COUNT, len(classes))]
    rows = torch.tensor([int((labels == label).nonzero()[0]) for label in sampled])
    images, _ = next(data.validation.subset(rows).batches(COUNT))
    return images.cpu()


def samples_of(sweep: SweepFolder, own: Collection[str] = ()) -> Tensor:
    """Return the sample images of a sweep's folder; nothing is downloaded.

    Args:
        sweep: Folder of the sweep.
        own: Dotted names that its data may have; they are imported.

    Raises:
        RequestError: The data are not there, or not named in `own`.
    """
    try:
        config = DataConfig.model_validate(sweep.setting("data"))
    except ValidationError as error:
        raise RequestError(f"{sweep.path / SETTINGS} must name data that this version knows") from error
    if {".", ":"} & set(config.name) and config.name not in own:
        raise RequestError(f"data of your own must be named: {config.name}", hint=f"add --own {config.name}")
    root = Path(config.root)
    return samples(datasets.load(**config.model_dump() | {"download": False, "root": root, "workers": 0}))
