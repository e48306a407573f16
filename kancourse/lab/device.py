"""Which device to compute on, in which precision, and why: the machine says what it chose.

- Weights and optimiser state are float32 everywhere; `dtype` is what autocast computes matrix products in.
- bfloat16 only where the hardware multiplies in it; float16 is never chosen, because its range needs loss scaling.
"""

from dataclasses import dataclass

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A choice of device and compute precision, and the reason for it."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> torch.autocast:
        """The context in which to run a model: autocast to `dtype`, or nothing when that is float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype is torch.bfloat16)


def pick_device(device: str = "auto", dtype: str = "auto") -> Device:
    """Choose where and how to compute.

    Args:
        device: "auto" (cuda, then mps, then cpu), or one of them by name.
        dtype: "auto", "float32" or "bfloat16".

    Raises:
        ValueError: an unknown name, or a device this machine does not have.
    """
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        device = available[0]
    elif device not in available:
        raise ValueError(f"device {device!r} is not available on this machine; available: {', '.join(available)}")

    if dtype != "auto":
        return Device(device=torch.device(device), dtype=getattr(torch, dtype), reason=f"{dtype} as asked")
    if device == "cuda":
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            reason = f"bfloat16: {name} multiplies in it"
            return Device(device=torch.device(device), dtype=torch.bfloat16, reason=reason)
        reason = f"float32: {name} has no bfloat16 units, and float16 would need loss scaling"
    elif device == "mps":
        reason = "float32: bfloat16 autocast on Apple GPUs is not tested here"
    else:
        reason = f"float32: no GPU found; {torch.get_num_threads()} CPU thread(s), where bfloat16 rarely pays"
    return Device(device=torch.device(device), dtype=torch.float32, reason=reason)
