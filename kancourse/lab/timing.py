"""Timing as a ratio of two: contestants run in turn, A B A B …, and the ratio is the median over pairs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch


def time_ratio(slow: Callable[[], Any], fast: Callable[[], Any], *, pairs: int = 7) -> float:
    """How many times as long `slow` takes as `fast`: the median over interleaved pairs, after one warm-up of each."""
    slow(), fast()
    ratios = []
    for _ in range(pairs):
        start = time.perf_counter()
        slow()
        middle = time.perf_counter()
        fast()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return median(ratios)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on a single thread, as on the machines that decoding is meant for, and as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
