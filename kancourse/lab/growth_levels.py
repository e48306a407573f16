"""A probe: a model that knows the first level of microworld grows, in words and in depth, to read the second and third.

- Five ways, from the same model: vectors of new words as the mean of the old, zero, or drawn; and, with the mean, old
  parts that learn at a third of the rate, or not at all.
- What a growth costs at once is measured and worked out by the formula; what the first level is worth afterwards is
  forgetting.

Shapes: B batch, T time, V vocabulary.
"""

import math
from typing import Any

import torch
from torch import nn

from kancourse.gpt import GPT, IGNORE
from kancourse.growth import GenerationAdamW, Lineage, activation_cost, grow
from kancourse.lab.batches import evaluation_batches
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.optim import decay_groups
from kancourse.lab.schedule import learning_rate
from kancourse.lab.tokens import TokenArray
from kancourse.lab.train import TrainConfig

WAYS: dict[str, dict[str, Any]] = {
    "rows: mean": {"new_rows": "mean"},
    "rows: zero": {"new_rows": "zero"},
    "rows: random": {"new_rows": "random"},
    "old parts at 0.3": {"new_rows": "mean", "old": 0.3},
    "old parts frozen": {"new_rows": "mean", "old": 0.0},
}
STEPS, BATCH, LR, N_DOCUMENTS, N_BATCHES = 150, 16, 4e-3, 8000, 24


def growth_levels(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """What five ways of growing from level 1 to levels 2 and 3 gain and lose.

    Args:
        model: trained on level 1, with attention and dense parts.
        corpus: microworld, level 1, whole words.
        seed: of new weights and of the data.

    Returns:
        `before`: validation loss on level 1; `steps`, `lr` of each further level; and in `ways`, by name: `jump` and
        `formula`, of the loss at the moment of each growth; `loss`: after each level's training, those on levels 1, 2
        and 3 (None: not read yet); `parameters` of the last model and `flops` of the climb, level 1 not counted.

    Raises:
        ValueError: another corpus, level or tokenizer.
    """
    if corpus.name != "microworld" or corpus.source.get("level") != 1 or corpus.tokenizer.name != "words":
        raise ValueError(f"growth_levels starts from microworld's level 1 in words, got {corpus.describe()}")
    levels = [corpus] + [
        load_corpus("microworld", level=level, tokenizer="words", n_documents=N_DOCUMENTS) for level in (2, 3)
    ]
    before = _loss(model, corpus)
    ways = {name: _climb(model, levels, before, seed, **way) for name, way in WAYS.items()}
    return {"before": before, "steps": STEPS, "lr": LR, "ways": ways}


def _climb(
    model: GPT, levels: list[Corpus], before: float, seed: int, *, new_rows: str, old: float = 1.0
) -> dict[str, Any]:
    """Grow and train, level by level."""
    optimizer = GenerationAdamW(decay_groups(model, 0.1), lr=LR, betas=(0.9, 0.95))
    generator, lineage, reached = torch.Generator().manual_seed(seed), Lineage(), before
    told: dict[str, Any] = {"jump": [], "formula": [], "loss": [[before, None, None]]}
    for number in (1, 2):
        n_old, vocab_size = model.config.vocab_size, levels[number].tokenizer.vocab_size
        model = grow(
            model,
            vocab_size=vocab_size,
            n_layer=model.config.n_layer + 1,
            optimizer=optimizer,
            new_rows=new_rows,
            generator=generator,
        )
        optimizer.set_lr_factors(*[old] * number, 1.0)
        last = levels[number - 1]
        told["jump"].append(_loss(model, last) - reached)
        told["formula"].append(mean_activation_cost(model, last.val, n_old))
        lineage.add(model, tokens=train_level(model, optimizer, levels[number], seed))
        losses = [_loss(model, corpus) if place <= number else None for place, corpus in enumerate(levels)]
        told["loss"].append(losses)
        reached = losses[number]
    return told | {"parameters": lineage.parameters, "flops": lineage.flops}


def train_level(model: GPT, optimizer: GenerationAdamW, corpus: Corpus, seed: int) -> int:
    """STEPS of training, warm-up and a fall to a tenth; returns how many tokens they took."""
    config = TrainConfig(steps=STEPS, lr=LR, warmup=STEPS // 10, batch_size=BATCH)
    sampler = corpus.sampler(model.config.block_size, BATCH, seed=seed)
    model.train()
    for step in range(STEPS):
        x, y = sampler.batch(step)  # (B, T) each
        optimizer.zero_grad(set_to_none=True)
        model.loss(x, y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        optimizer.step()
    model.eval()
    return STEPS * BATCH * model.config.block_size


@torch.no_grad()
def mean_activation_cost(model: GPT, tokens: TokenArray, n_old: int) -> float:
    """`activation_cost` over the targets that `_loss` scores, in nats per token."""
    total, count = 0.0, 0
    for x, y in evaluation_batches(tokens, model.config.block_size, BATCH, max_batches=N_BATCHES):
        logits = model(x)[y != IGNORE]  # (targets, V)
        total += float(activation_cost(logits.double(), n_old)) * len(logits)
        count += len(logits)
    return total / count if count else math.nan


def _loss(model: GPT, corpus: Corpus) -> float:
    return evaluate(model, corpus.val, batch_size=BATCH, max_batches=N_BATCHES).loss
