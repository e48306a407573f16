"""The trainer: one loop for notebooks, command line and GPU runs.

Notable points:
- Everything random is a pure function of (seed, step): the rows of a batch, the dropout of a step. To resume is
  to load weights and moments and go on counting; on CPU the end is bit-identical to a run that was never interrupted.
- Accumulated gradients equal the big batch's: each micro-batch is weighted by its share of the counted targets.
- Stopping is decided on validation loss, in evaluations, never on the noisy loss of a batch.
- A part may have an `auxiliary_loss()` (a scalar of its last forward, or None), which is added to the loss that is
  trained on, never to one that is reported; and an `after_step()`, called after each optimiser step.
- Under torchrun the same call is data-parallel: each process takes its rows of the same global batch.

Shapes: B global batch, T block_size.
"""

import csv
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from kancourse.gpt import GPT, IGNORE
from kancourse.growth import GenerationAdamW
from kancourse.lab.checkpoint import load_checkpoint, restore_optimizer, save_checkpoint
from kancourse.lab.corpus import Corpus
from kancourse.lab.device import Device, pick_device
from kancourse.lab.distributed import barrier, world
from kancourse.lab.evaluate import evaluate
from kancourse.lab.growth_events import check_growth, grow_between
from kancourse.lab.interrupts import stop_requests
from kancourse.lab.meters import count_flops
from kancourse.lab.optim import make_adamw
from kancourse.lab.schedule import SCHEDULES, learning_rate
from kancourse.lora import lora_layers

LATEST, BEST, LOG = "latest.safetensors", "best.safetensors", "log.csv"
_FREE_TO_CHANGE = ("out_dir", "resume", "checkpoint_minutes", "micro_batch", "device", "compile")  # when resuming


@dataclass(kw_only=True)
class TrainConfig:
    """How to train. The defaults fit a small model on a laptop."""

    steps: int = 300  # optimiser steps
    batch_size: int = 16  # sequences per optimiser step, over all processes
    micro_batch: int | None = None  # sequences per forward pass; None: all that a process has
    lr: float = 3e-3  # peak learning rate
    final_lr_ratio: float = 0.1  # what is left of it at the end
    warmup: int = 50  # steps of linear warm-up
    schedule: str = "cosine"  # "cosine", "wsd", "two_stage" or "constant"
    decay_fraction: float = 0.2  # wsd: the last part, which decays
    stage_ratio: float = 0.67  # two_stage: the rate's factor in the second half
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    weight_decay_until: float = 1.0  # the fraction of the steps after which nothing decays any more
    grad_clip: float = 1.0  # largest gradient norm; 0: never clip
    eval_every: int = 100  # steps between validations; there is always one at the end
    eval_batches: int | None = None  # validation batches; None: the whole split
    patience: int | None = None  # stop after so many validations without a new best; None: never
    growth: list[dict] | None = None  # [{"step": 200, "n_layer": 8}, …]: before which steps it grows, and how
    seed: int = 0  # of data order and dropout
    device: str = "auto"  # "auto", "cpu", "cuda" or "mps"
    dtype: str = "auto"  # of autocast: "auto", "float32" or "bfloat16"; weights and optimiser are float32
    compile: bool = False  # torch.compile the loss
    out_dir: str | None = None  # where checkpoints and log go; None: nowhere (`kancourse train`: under runs_out)
    resume: bool = True  # go on from out_dir's latest checkpoint when there is one
    checkpoint_minutes: float = 10.0  # between checkpoints; there is always one at the end, or when asked to stop

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "micro_batch", "patience", "eval_batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.weight_decay_until <= 1:
            raise ValueError(f"weight_decay_until is a fraction of the steps, 0 to 1, got {self.weight_decay_until}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        check_growth(self.growth, self.steps)
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {', '.join(SCHEDULES)}")


@dataclass(kw_only=True)
class TrainResult:
    """What happened; losses in nats per token.

    Rows of `history` have step, tokens, flops, seconds, lr, loss, grad_norm and, where it was measured, val_loss.
    """

    steps: int = 0
    tokens: int = 0  # trained on, over all processes
    flops: float = 0.0  # of matrix products, forward and backward
    seconds: float = 0.0  # of all sessions of this run, validation included
    val_loss: float = math.nan  # the last one
    best_val_loss: float = math.inf
    best_step: int = 0
    stopped: str = ""  # "finished" or "patience"; empty while it runs
    history: list[dict[str, float]] = field(default_factory=list)


class _Loss(nn.Module):
    """`model.loss` and the sum of auxiliary losses as a forward, which is what DDP and torch.compile hook into."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.extras = [module.auxiliary_loss for module in model.modules() if hasattr(module, "auxiliary_loss")]

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.model.loss(x, y)
        told = [extra() for extra in self.extras]
        return loss, sum((value for value in told if value is not None), loss.new_zeros(()))


def train(
    model: GPT,
    corpus: Corpus,
    config: TrainConfig,
    *,
    on_step: Callable[[dict[str, float]], None] | None = None,
    until: int | None = None,
) -> TrainResult:
    """Train a model on a corpus, in place.

    Asked to stop (Ctrl-C, SIGTERM), it finishes the step, saves to `out_dir`, and then stops.

    Args:
        model: anything `zoo.build` makes; it is moved to the device and left there, in eval mode.
        corpus: training and validation tokens, and the tokenizer they were made with.
        config: see `TrainConfig`.
        on_step: called after every optimiser step with its row of the history.
        until: leave off after this step, saved; the schedule stays that of `config.steps`, and another call goes on.

    Returns:
        A `TrainResult`. With `out_dir`, that folder holds `latest.safetensors` (to go on from), `best.safetensors`
        (weights of the best validation) and `log.csv` (the history).

    Raises:
        ValueError: vocabulary or batch sizes that do not fit, `out_dir` holds a run with other settings, or is given
            for a model with adapters, which have files of their own.
        FloatingPointError: loss or gradient is not finite; the last checkpoint is from before.
    """
    rank, n_ranks = world()
    n_tokens = corpus.tokenizer.vocab_size
    if n_tokens > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {n_tokens} tokens, the model's vocab_size is {model.config.vocab_size}")
    if config.batch_size % n_ranks:
        raise ValueError(f"batch_size {config.batch_size} is not divisible by {n_ranks} processes")
    if config.out_dir and lora_layers(model):
        raise ValueError("a checkpoint holds no adapters: train them with out_dir=None, and keep them by save_adapter")
    device = pick_device(config.device, config.dtype)
    model.to(device.device).train()
    optimizer = make_adamw(
        model, lr=config.lr, beta1=config.beta1, beta2=config.beta2, weight_decay=config.weight_decay
    )
    out_dir = Path(config.out_dir) if config.out_dir else None
    result = TrainResult()
    if config.growth:
        optimizer = GenerationAdamW.adopt(optimizer)
    if out_dir and config.resume and (out_dir / LATEST).exists():
        result = _resume(out_dir / LATEST, model, optimizer, corpus, config)
    sampler = corpus.sampler(model.config.block_size, config.batch_size, seed=config.seed)

    def prepare() -> tuple[nn.Module, list[Callable[[], None]], float]:
        """What has to be made anew when the model has grown: the loss, the parts' own steps, the FLOPs of a step."""
        loss_module: nn.Module = _Loss(model)
        if n_ranks > 1:
            loss_module = DistributedDataParallel(loss_module)
        hooks = [module.after_step for module in model.modules() if hasattr(module, "after_step")]
        # 3×: the backward pass multiplies twice as much as the forward.
        step_flops = 3.0 * config.batch_size * count_flops(model, 1, model.config.block_size)
        return torch.compile(loss_module) if config.compile else loss_module, hooks, step_flops

    loss_fn, hooks, step_flops = prepare()

    def save() -> None:
        if out_dir and rank == 0:
            state = {"train": asdict(config), "corpus": corpus.describe(), "result": asdict(result)}
            save_checkpoint(out_dir / LATEST, model, tokenizer=corpus.tokenizer, optimizer=optimizer, train_state=state)
            _write_log(out_dir / LOG, result.history)

    def validate(row: dict[str, float]) -> None:
        row["val_loss"] = result.val_loss = evaluate(
            model, corpus.val, batch_size=config.batch_size, max_batches=config.eval_batches, device=device
        ).loss
        if result.val_loss < result.best_val_loss:
            result.best_val_loss, result.best_step = result.val_loss, result.steps
            if out_dir and rank == 0:
                told = {"corpus": corpus.describe()}
                save_checkpoint(out_dir / BEST, model, tokenizer=corpus.tokenizer, train_state=told)

    show_bar = rank == 0 and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    started, last_save = time.monotonic() - result.seconds, time.monotonic()
    with (
        torch.random.fork_rng(),  # the caller's random state is left as it was
        stop_requests(enabled=n_ranks == 1) as stop,  # with several, one could wait for another forever
        tqdm(total=config.steps, initial=result.steps, disable=not show_bar, mininterval=1, ncols=100) as bar,
    ):
        while not result.stopped and (until is None or result.steps < until):
            if grow_between(model, optimizer, config.growth, since=result.steps, until=result.steps, seed=config.seed):
                loss_fn, hooks, step_flops = prepare()
            x, y = sampler.batch(result.steps)  # (B, T) each
            lr = learning_rate(result.steps, config)
            loss, grad_norm = _optimizer_step(loss_fn, optimizer, x, y, lr, result.steps, config, device)
            for after_step in hooks:
                after_step()
            result.steps += 1
            result.tokens += x.numel()
            result.flops += step_flops
            result.seconds = time.monotonic() - started
            row = {"step": result.steps, "tokens": result.tokens, "flops": result.flops, "seconds": result.seconds}
            row |= {"lr": lr, "loss": loss, "grad_norm": grad_norm}
            result.history.append(row)
            if result.steps % config.eval_every == 0 or result.steps == config.steps:
                validate(row)
                result.stopped = _why_stop(result, config)
            if on_step:
                on_step(row)
            bar.set_postfix_str(f"loss {loss:.3f}, validation {result.val_loss:.3f}", refresh=False)
            bar.update()
            if stop:
                save()
                stop.obey()
            if time.monotonic() - last_save > 60 * config.checkpoint_minutes:
                save()
                last_save = time.monotonic()
    save()
    barrier()
    model.eval()
    return result


def _optimizer_step(
    loss_fn: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    lr: float,
    step: int,
    config: TrainConfig,
    device: Device,
) -> tuple[float, float]:
    """One step on this process's rows of a global batch; returns the mean loss of those rows and the gradient norm.

    Raises:
        FloatingPointError: the gradient is not finite; the weights are as before.
    """
    rank, n_ranks = world()
    torch.manual_seed((config.seed << 40) + (step << 8) + rank)  # dropout is a function of seed, step and rank
    n_targets = int((y != IGNORE).sum())
    rows = slice(rank * len(x) // n_ranks, (rank + 1) * len(x) // n_ranks)
    x, y = x[rows], y[rows]
    micro = config.micro_batch or len(x)
    optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for start in range(0, len(x), micro):
        piece = slice(start, start + micro)
        share = int((y[piece] != IGNORE).sum()) / n_targets
        is_last = start + micro >= len(x)
        with nullcontext() if n_ranks == 1 or is_last else loss_fn.no_sync():
            with device.autocast():
                mean, auxiliary = loss_fn(x[piece].to(device.device), y[piece].to(device.device))
            ((mean + auxiliary) * (share * n_ranks)).backward()  # times n_ranks, because DDP averages over processes
        loss += float(mean.detach()) * share * n_ranks
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = float(nn.utils.clip_grad_norm_(parameters, config.grad_clip or math.inf))
    if not math.isfinite(grad_norm):
        raise FloatingPointError(f"gradient norm {grad_norm} at step {step}, learning rate {lr:.2g}: try a lower lr")
    for group in optimizer.param_groups:
        group["lr"] = lr
        if step >= config.weight_decay_until * config.steps:
            group["weight_decay"] = 0.0
    optimizer.step()
    return loss, grad_norm


def _why_stop(result: TrainResult, config: TrainConfig) -> str:
    if config.patience is not None and result.steps - result.best_step >= config.patience * config.eval_every:
        return "patience"
    return "finished" if result.steps >= config.steps else ""


def _resume(
    path: Path, model: GPT, optimizer: torch.optim.Optimizer, corpus: Corpus, config: TrainConfig
) -> TrainResult:
    """Load weights, moments and history of a run with the same settings."""
    checkpoint = load_checkpoint(path)
    saved = checkpoint.train_state
    grow_between(model, optimizer, config.growth, since=0, until=saved["result"]["steps"] - 1, seed=config.seed)
    here = {**model.config.to_dict(), **corpus.describe(), **asdict(config)}
    there = {**checkpoint.model.config.to_dict(), **saved["corpus"], **saved["train"]}
    for name, value in here.items():
        if name not in _FREE_TO_CHANGE and there.get(name) != value:
            raise ValueError(
                f"{path} is of a run with {name} {there.get(name)!r}, this one has {value!r}: "
                "choose another out_dir, or resume=False (--no_resume) to start over"
            )
    model.load_state_dict(checkpoint.model.state_dict())
    restore_optimizer(optimizer, model, checkpoint.optimizer_state)
    return TrainResult(**saved["result"])


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    columns = ["step", "tokens", "flops", "seconds", "lr", "loss", "grad_norm", "val_loss"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)
