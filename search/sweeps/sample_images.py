"""Some images of a sweep's own, to be looked at."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from results.reporting.sweep_folder import SETTINGS, SweepFolder
from search.config.schema import DataConfig
from spaces import RequestError
from trainables import data as datasets
from trainables.data import DataSet

COUNT = 6


def samples(data: DataSet) -> Tensor:
    """The first validation image of each of some classes, spread over all: (B, C, H, W) uint8, at most `COUNT`."""
    labels = data.validation.labels
    classes = labels.unique()
    chosen = classes[torch.arange(min(COUNT, len(classes))) * len(classes) // min(COUNT, len(classes))]
    rows = torch.tensor([int((labels == label).nonzero()[0]) for label in chosen])
    images, _ = next(data.validation.subset(rows).batches(COUNT))
    return images.cpu()


def samples_of(sweep: SweepFolder, own: Collection[str] = ()) -> Tensor:
    """Those of a sweep whose folder is at hand; nothing is fetched.

    Args:
        sweep: the folder.
        own: dotted names that its data may have; they are imported.

    Raises:
        RequestError: the data are not there, or not named in `own`.
    """
    try:
        config = DataConfig.model_validate(sweep.setting("data"))
    except ValidationError as error:
        raise RequestError(f"{sweep.path / SETTINGS} names no data that this version knows") from error
    if {".", ":"} & set(config.name) and config.name not in own:
        raise RequestError(f"its data are a factory of your own, {config.name}", hint=f"say --own {config.name}")
    root = Path(config.root)
    return samples(datasets.load(**config.model_dump() | {"download": False, "root": root, "workers": 0}))
