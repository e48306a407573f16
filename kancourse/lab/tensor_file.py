"""What our files of tensors have in common: one header of JSON, one sentence for what is wrong, a check of the fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["ADAPTER", "CHECKPOINT", "PACKED", "misfit", "read_tensors"]

CHECKPOINT, PACKED, ADAPTER = "kancourse", "kancourse_packed", "kancourse_adapter"  # fields of the header
KINDS = {
    CHECKPOINT: "a checkpoint that is not packed",
    PACKED: "a packed model: it can be sampled, evaluated, adapted and exported, not trained, packed, grown or walked",
    ADAPTER: "an adapter: it goes beside a model, as in --adapter",
}


def read_tensors(
    path: Path, *, field: str, what: str, name: str, version: int, take: Callable[[Tensor], Tensor] = lambda t: t
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a safetensors file of ours.

    Args:
        path: the file.
        field: of the metadata, where the header stands.
        what, name: what such a file is, for the sentences: "a packed kancourse model", "packed".
        version: the `format` of the header that can be read.
        take: what to do with each tensor as it is read.

    Raises:
        ValueError: the file is cut short, not one of these, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if field not in metadata:
                kinds = (KINDS[kind] for kind in KINDS if kind in metadata)
                other = next(kinds, "a safetensors file (no such header)")
                raise ValueError(f"{path} is not {what}, but {other}")
            header = json.loads(metadata[field])
            if header["format"] != version:
                raise ValueError(f"{path} has {name} format {header['format']}; this version reads {version}")
            return header, {key: take(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error})") from error


def misfit(state: dict[str, Tensor], expected: dict[str, Tensor]) -> str:
    """Where two sets of tensors differ first in name, shape or dtype; "" where nowhere."""

    def looks(tensor: Tensor | None) -> str:
        return "missing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"

    for name in expected | state:
        here, there = looks(state.get(name)), looks(expected.get(name))
        if here != there:
            return f"{name} is {here}, expected {there}"
    return ""
