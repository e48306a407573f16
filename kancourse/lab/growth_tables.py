"""What growing saved: FLOPs and losses of a study's arms, ancestors included, at equal FLOPs and at equal loss.

- Two questions, which are often mixed up. *How much cheaper, how much worse* than the large model's full run; and *what
  would it have cost to get the same loss* with the large model and a shorter run. A run that saves 60% of the FLOPs for
  1% of loss saves nothing if a shorter run would have done the same.
- A shorter run has its own schedule, down to the end: the middle of a long one, before its rate has fallen, is no
  competitor.
- Seed by seed, as all arms of a study see the same data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch

from kancourse.gpt import GPT
from kancourse.growth_cost import BACKWARD, flops_per_token
from kancourse.zoo import ModelConfig, build, configure

SIZES = ("n_layer", "n_head", "n_embd", "ffn_dim")
NOT_SIZES = ("step", "new_rows", "lr_factors", "keep_state")


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What one arm saved, a value per seed."""

    loss_gap: list[float]  # loss over the reference's, minus 1
    flops_share: float  # FLOPs over the reference's
    at_equal_loss: list[float]  # share of FLOPs saved against a run of the reference's model that ends at that loss
    beyond: list[
        int
    ]  # 1: the loss is below all of the ladder, and the share saved at least so large; -1: above; else 0


def stages(arm: Mapping[str, Any]) -> list[tuple[int, int]]:
    """An arm's models, oldest first: the step from which each was trained, and its FLOPs per token, forward."""
    experiment, config = arm["experiment"], dict(arm["model"])  # the model as it is after its last growth
    events = experiment.get("growth") or []
    if events:
        preset = configure(experiment["model"])
        given = {name: experiment.get(name) for name in SIZES}
        config |= {name: getattr(preset, name) if size is None else size for name, size in given.items()}
        config["norm_options"] = preset.norm_options
    told = [(0, _cost(config))]
    for event in events:
        sizes = {name: size for name, size in event.items() if name not in NOT_SIZES}
        head_dim = sizes.pop("head_dim", config["n_embd"] // config["n_head"])
        config |= sizes
        config["n_embd"] = config["n_head"] * head_dim
        told.append((event["step"], _cost(config)))
    return told


def _cost(config: Mapping[str, Any]) -> int:
    with torch.device("meta"):  # sizes only
        model: GPT = build(ModelConfig.from_dict(dict(config)))
    return flops_per_token(model)


def flops_until(arm: Mapping[str, Any], step: int) -> float:
    """FLOPs of an arm's first `step` steps, forward and backward, ancestors included."""
    per_step = arm["experiment"]["batch_size"] * arm["model"]["block_size"] * (1 + BACKWARD)
    told, total = stages(arm), 0.0
    for (begin, cost), end in zip(told, [begin for begin, _ in told[1:]] + [step], strict=True):
        total += per_step * cost * max(0, min(step, end) - begin)
    return total


def curves(arm: Mapping[str, Any]) -> tuple[list[float], list[list[float]]]:
    """FLOPs at each validation, and each seed's losses there."""
    steps = [row["step"] for row in arm["runs"][0]["validations"]]
    losses = [[row["val_loss"] for row in run["validations"]] for run in arm["runs"]]
    return [flops_until(arm, step) for step in steps], losses


def losses(arm: Mapping[str, Any]) -> list[float]:
    """The last validation loss of each seed."""
    return [run["val_loss"] for run in arm["runs"]]


def flops_for_loss(loss: float, ladder: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """FLOPs at which runs of growing length reach a loss, log-linear between them; and whether the loss lies beyond.

    Args:
        loss: to reach.
        ladder: (FLOPs, last loss) of whole runs.

    Returns:
        The FLOPs, and 0; for a loss below all runs those of the longest, and 1; above all, of the shortest, and -1.
    """
    points = sorted(ladder)
    for (flops, high), (more, low) in pairwise(points):
        if low <= loss <= high:
            share = 0.0 if high == low else (high - loss) / (high - low)
            return math.exp(math.log(flops) + share * (math.log(more) - math.log(flops))), 0
    return (points[0][0], -1) if loss > points[0][1] else (points[-1][0], 1)


def savings(record: Mapping[str, Any], name: str, *, reference: str, ladder: Sequence[str]) -> Savings:
    """What arm `name` saved.

    Args:
        record: of a study.
        reference: the arm of the large model's full run.
        ladder: arms of the same model with shorter runs.
    """
    arms = record["arms"]
    flops, full = arms[name]["runs"][0]["flops"], arms[reference]
    whole = [(arms[rung]["runs"][0]["flops"], losses(arms[rung])) for rung in (*ladder, reference)]
    told, beyond = [], []
    for seed, loss in enumerate(losses(arms[name])):
        needed, outside = flops_for_loss(loss, [(cost, each[seed]) for cost, each in whole])
        told.append(1 - flops / needed)
        beyond.append(outside)
    return Savings(
        loss_gap=[one / other - 1 for one, other in zip(losses(arms[name]), losses(full), strict=True)],
        flops_share=flops / full["runs"][0]["flops"],
        at_equal_loss=told,
        beyond=beyond,
    )


def compute_table(record: Mapping[str, Any], *, reference: str, ladder: Sequence[str]) -> str:
    """All arms of a study as a Markdown table, cheapest first: FLOPs, loss, and what was saved, with bands."""
    rows = [
        "| arm | parameters | FLOPs, ancestors included | rate | validation loss | loss against the full run "
        "| FLOPs saved against it | FLOPs saved at equal loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    arms = record["arms"]
    for name in sorted(arms, key=lambda name: arms[name]["runs"][0]["flops"]):
        arm, told = arms[name], savings(record, name, reference=reference, ladder=ladder)
        edge = " (end of the sweep)" if arm["lr_at_edge"] else ""
        bound = "at least " if max(told.beyond) > 0 else "at most " if min(told.beyond) < 0 else ""
        equal = "" if name in ladder or told.flops_share == 1 else bound + _band(told.at_equal_loss, "{:+.0%}")
        rows.append(
            f"| {name} | {arm['parameters']['total']:,} | {arm['runs'][0]['flops']:.3g} | {arm['lr']:g}{edge} "
            f"| {_band(losses(arm), '{:.4f}')} | {_band(told.loss_gap, '{:+.1%}')} | {1 - told.flops_share:.0%} "
            f"| {equal} |"
        )
    return "\n".join(rows)


def _band(values: Sequence[float], form: str) -> str:
    return f"{form.format(fmean(values))} ({form.format(min(values))} to {form.format(max(values))})"
