"""Learning rates over a run, as pure functions of the step: nothing to store, nothing to restore.

`SCHEDULES` maps a name to `shape(progress, config) -> factor of the peak rate`, progress running 0 → 1 after warm-up.

Papers: Loshchilov & Hutter 2017, "SGDR" (cosine); Hu et al. 2024, "MiniCPM" (WSD: warm-up, stable, decay); Ma et al.
2024, "The Era of 1-bit LLMs: Training Tips, Code and FAQ" (two stages).
"""

import math
from collections.abc import Callable
from typing import Protocol


class ScheduleConfig(Protocol):
    """What a schedule reads from a training config."""

    steps: int
    warmup: int
    lr: float
    final_lr_ratio: float
    decay_fraction: float
    stage_ratio: float
    schedule: str


def cosine(progress: float, config: ScheduleConfig) -> float:
    """Half a cosine wave from 1 down to final_lr_ratio."""
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(progress: float, config: ScheduleConfig) -> float:
    """Stable at 1, then straight down to final_lr_ratio over the last decay_fraction."""
    remaining = min(1.0, (1 - progress) / config.decay_fraction) if config.decay_fraction else 1.0
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * remaining


def two_stage(progress: float, config: ScheduleConfig) -> float:
    """Straight down from 1 to final_lr_ratio over the whole run, times stage_ratio from half-way on."""
    stage = 1.0 if progress < 0.5 else config.stage_ratio
    return stage * (config.final_lr_ratio + (1 - config.final_lr_ratio) * (1 - progress))


def constant(progress: float, config: ScheduleConfig) -> float:
    """1 throughout."""
    return 1.0


SCHEDULES: dict[str, Callable[[float, ScheduleConfig], float]] = {
    "cosine": cosine,
    "wsd": wsd,
    "two_stage": two_stage,
    "constant": constant,
}


def learning_rate(step: int, config: ScheduleConfig) -> float:
    """The learning rate of the optimiser step that goes from `step` to `step + 1` (so step 0 is the first).

    Linear warm-up over `warmup` steps (the first already above zero), then the named shape; the last step has the
    shape's last value.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    span = max(1, config.steps - 1 - config.warmup)
    return config.lr * SCHEDULES[config.schedule](min(1.0, (step - config.warmup) / span), config)
