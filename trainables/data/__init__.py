"""Data sets: `load(name, …)` returns a `DataSet` of three `Images` parts."""

from trainables.data.dataset import DataSet
from trainables.data.image_folder import FolderImages
from trainables.data.images import Images, TensorImages
from trainables.data.loading import load
from trainables.data.registry import DATA
from trainables.data.source import DataSource
from trainables.data.splits import stratified_split

__all__ = ["DATA", "DataSet", "DataSource", "FolderImages", "Images", "TensorImages", "load", "stratified_split"]
