"""Split digits: ten digits as five tasks of two, seen once, one pair after the other, with one output layer for all.

- A model is told neither when a task ends nor, when asked, which two digits come into question. That is the hard kind
  of continual learning; with either hint all methods look much better.
- The images are those that scikit-learn brings along (8 × 8); MNIST comes through `datasets`.

Papers: Lan & Mahmood 2023, "Elephant Neural Networks" [1]; van de Ven & Tolias 2019, "Three scenarios for continual
learning" (this is class-incremental learning) [2].

Shapes: R runs, N images, I pixels, K tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kancourse.lab.continual import ManyAdam
from kancourse.lab.readers import local_folder

TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
TEST_SHARE = 0.2  # of the digits, which come without a split
MNIST, MNIST_REVISION = "ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c"


@dataclass(frozen=True)
class Images:
    """Images as rows of numbers in [−1, 1], and what they show."""

    train_x: Tensor  # (N, I)
    train_y: Tensor  # (N,) digits
    test_x: Tensor
    test_y: Tensor


@cache
def load_images(name: str = "digits") -> Images:
    """The "digits" that scikit-learn has, or "mnist": from `$KANCOURSE_DATA/mnist/` (Parquet files), else downloaded.

    The digits (Alpaydin and Kaynak 1998, 8 × 8 pixels from 0 to 16) are split at random, always alike.

    Raises:
        ValueError: an unknown name.
        ConnectionError: MNIST is neither here nor to be had.
    """
    if name == "mnist":
        return Images(*_mnist("train"), *_mnist("test"))
    if name != "digits":
        raise ValueError(f"unknown images {name!r}; known: digits, mnist")
    from sklearn.datasets import load_digits  # here, because it takes a while to import

    pixels, digits = (torch.from_numpy(array) for array in load_digits(return_X_y=True))  # (N, I), (N,)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    x, y = pixels[order].float() / 8 - 1, digits[order].long()
    n_test = round(TEST_SHARE * len(x))
    return Images(x[n_test:], y[n_test:], x[:n_test], y[:n_test])


def split_digits(
    net: nn.Module,
    lrs: Sequence[float],
    images: Images,
    *,
    seeds: Sequence[int],
    batch_size: int = 1,
    shuffled: bool = False,
) -> Tensor:
    """One pass over the tasks in order, every image once, in small batches.

    Args:
        net: of R runs, as many inputs as pixels and ten outputs; trained in place.
        lrs: R learning rates.
        images: see `load_images`.
        seeds: R of them, of the order of the images within a task.
        batch_size: images per update.
        shuffled: the control: the images of all tasks mixed, as often.

    Returns:
        (R, K, K) accuracies among all ten digits: row k has those on the test images of every task after the k-th
        (shuffled: after each fifth of the pass).
    """
    orders = torch.stack([_order(images.train_y, seed, shuffled) for seed in seeds])  # (R, N)
    ends = torch.tensor([sum(int((images.train_y == digit).sum()) for digit in pair) for pair in TASKS]).cumsum(0)
    optimizer, rows, done = ManyAdam(net, lrs), [], 0
    for end in ends.tolist():
        for piece in orders[:, done:end].split(batch_size, dim=1):  # (R, B)
            logits = net(images.train_x[piece])  # (R, B, 10)
            optimizer.step(F.cross_entropy(logits.mT, images.train_y[piece], reduction="none").mean(1))
        done = end
        rows.append(accuracies(net, images))
    return torch.stack(rows, dim=1)


@torch.no_grad()
def accuracies(net: nn.Module, images: Images) -> Tensor:
    """(R, K): each run's share of right answers on each task's test images, all ten digits being possible answers."""
    right = (net(images.test_x).argmax(-1) == images.test_y).double()  # (R, N)
    return torch.stack([right[:, torch.isin(images.test_y, torch.tensor(pair))].mean(1) for pair in TASKS], dim=1)


def _order(y: Tensor, seed: int, shuffled: bool) -> Tensor:
    """(N,) numbers of the images in the order they come."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return order if shuffled else order[(y[order] // 2).argsort(stable=True)]


def _mnist(split: str) -> tuple[Tensor, Tensor]:
    import datasets

    folder = local_folder("mnist")
    if folder:
        files = sorted(map(str, Path(folder).rglob(f"*{split}*.parquet")))
        table = datasets.load_dataset("parquet", data_files=files, split="train")
        table = table.cast_column("image", datasets.Image())
    else:
        try:
            table = datasets.load_dataset(MNIST, revision=MNIST_REVISION, split=split)
        except (OSError, datasets.exceptions.DatasetsError) as error:
            raise ConnectionError(
                f"MNIST is not in $KANCOURSE_DATA/mnist and could not be fetched ({error}); 'digits' needs no network"
            ) from error
    x = torch.stack([torch.from_numpy(np.asarray(image, dtype=np.float32)).flatten() for image in table["image"]])
    return x / 127.5 - 1, torch.tensor(table["label"])
