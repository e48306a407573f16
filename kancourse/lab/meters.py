"""Meters: parameters, FLOPs, bytes kept for the backward pass, peak memory.

- A multiplication and an addition count as two FLOPs; only matrix products count, as everyone counts them.
- Attention counts the whole T×T square, as PyTorch's own counter does, although the causal half would do.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> dict[str, int]:
    """How many parameters: `total` (shared ones once), `embedding`, `head` (0 when tied) and `body`, the rest."""
    total = sum(p.numel() for p in model.parameters())
    embedding = sum(p.numel() for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters())
    head = getattr(model, "lm_head", None)
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head_size = 0 if head is None else sum(p.numel() for p in head.parameters() if id(p) not in embedded)
    return {"total": total, "embedding": embedding, "head": head_size, "body": total - embedding - head_size}


@torch.no_grad()
def count_flops(model: nn.Module, batch_size: int, n_tokens: int) -> int:
    """FLOPs of the matrix products in one forward pass on ids of shape (batch_size, n_tokens), by PyTorch's counter."""
    idx = torch.zeros(batch_size, n_tokens, dtype=torch.long, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    # The fused attention kernels of some devices are unknown to the counter; the plain one is matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(idx)
    model.train(was_training)
    return counter.get_total_flops()


def saved_tensor_bytes(fn: Callable[[], Any], *, ignore: nn.Module | None = None) -> int:
    """Bytes that autograd keeps for the backward pass of what `fn` computes.

    Args:
        fn: runs a forward pass.
        ignore: a module whose parameters do not count (they exist anyway).

    Returns:
        Bytes, each storage once.
    """
    known = set() if ignore is None else {p.untyped_storage().data_ptr() for p in ignore.parameters()}
    storages: dict[int, int] = {}
    alive = []  # so that no address is used twice while we count

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fn()
    return sum(storages.values())


def peak_memory(fn: Callable[[], Any], device: torch.device | str = "cpu") -> int:
    """The most bytes PyTorch held at a time while `fn` ran, beyond what it held before.

    On CUDA from the allocator's statistics, on CPU from the profiler's record of every allocation and release.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        fn()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if device.type != "cpu":
        raise ValueError(f"peak memory is measured on cpu and cuda, not on {device.type}")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        fn()
    events = sorted(
        (e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return peak
