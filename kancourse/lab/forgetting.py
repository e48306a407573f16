"""Forgetting across domains: a probe that trains on with one of them, and how models are compared afterwards.

- A model that knows all of microworld goes on with one domain only, at one and the same learning rate for all models.
  On the way the validation loss is taken on that domain (what is gained) and on the others (what is lost).
- A model that learns nothing forgets nothing. So models are compared at *equal gain*: where each has gained on the new
  domain what the slowest of them gains in all its steps.
"""

import copy
from collections.abc import Iterable
from typing import Any

from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.train import TrainConfig, train

__all__ = ["equal_gain", "forgetting", "forgotten_at"]

NEW_DOMAIN = "sums"
STEPS, EVERY, LR = 80, 20, 1e-3


def forgetting(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Validation losses (nats per token) on the new domain and on the others, every few steps of training on the new.

    Raises:
        ValueError: the corpus is not microworld with all of its domains.
    """
    domains, level = corpus.source.get("domains", ()), corpus.source.get("level", 1)
    if corpus.name != "microworld" or NEW_DOMAIN not in domains or len(domains) < 2:
        raise ValueError(
            f"forgetting needs microworld with {NEW_DOMAIN} and another domain, got {corpus.name} {domains}"
        )
    parts = {"new": (NEW_DOMAIN,), "others": tuple(name for name in domains if name != NEW_DOMAIN)}
    new, others = (
        load_corpus("microworld", level=level, domains=names, tokenizer=corpus.tokenizer) for names in parts.values()
    )
    told: dict[str, Any] = {"domain": NEW_DOMAIN, "lr": LR, "step": [], "new": [], "others": []}
    pupil = copy.deepcopy(model)

    def look(row: dict[str, float]) -> None:
        if row["step"] % EVERY == 0:
            told["step"].append(row["step"])
            for name, part in (("new", new), ("others", others)):
                told[name].append(evaluate(pupil, part.val, max_batches=8).loss)

    look({"step": 0})
    config = TrainConfig(
        steps=STEPS, lr=LR, warmup=1, schedule="constant", eval_every=STEPS, eval_batches=1, seed=seed, device="cpu"
    )
    train(pupil, new, config, on_step=look)
    return told


def equal_gain(runs: Iterable[dict[str, Any]]) -> float:
    """The largest gain on the new domain, in nats per token, that every one of the runs reaches.

    Args:
        runs: what `forgetting` told.
    """
    return min(max(run["new"][0] - loss for loss in run["new"]) for run in runs)


def forgotten_at(run: dict[str, Any], gain: float) -> float:
    """How far the others' loss has risen where the new domain's has fallen by `gain`, straight between two looks.

    Args:
        run: what `forgetting` told.
        gain: nats per token, above 0.

    Raises:
        ValueError: the run never gains so much.
    """
    fallen = [run["new"][0] - loss for loss in run["new"]]
    risen = [loss - run["others"][0] for loss in run["others"]]
    for one in range(1, len(fallen)):
        if fallen[one] >= gain:
            share = (gain - fallen[one - 1]) / (fallen[one] - fallen[one - 1])
            return risen[one - 1] + share * (risen[one] - risen[one - 1])
    raise ValueError(f"this run gains {max(fallen):.4f} nats at most, not {gain:.4f}")
