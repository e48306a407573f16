"""Data parallelism as torchrun sets it up: who am I, how many are we, and sums over all of us.

Without torchrun there is one process and every function here is the identity. More than one machine is torchrun's job.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank of this process, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the group torchrun started this process in, if it did; leave it at the end."""
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor, device: torch.device) -> Tensor:
    """The elementwise sum of `values` over all processes, on CPU."""
    if not dist.is_initialized():
        return values
    values = values.to(device) if device.type == "cuda" else values.clone()
    dist.all_reduce(values)
    return values.cpu()


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()
