"""A probe for low-rank adapters: a finished model learns a domain it has never seen, beside its weights or in them.

All ways get the same steps and the same learning rates, on copies. *Beside*: adapters in the blocks of the packed model
(of a copy, if it has nothing to pack). *Beside, head too*: and one on the head, which has to bring up words that the
model has never met. *In*: all weights are trained on. Validation losses, in nats per token, are taken on the new domain
and on what the model knew before, and once more with the adapters taken off.
"""

import copy
from typing import Any

import torch

from kancourse.bitnet import BitLinear
from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.train import TrainConfig, train
from kancourse.lora import add_lora, remove_lora
from kancourse.packed import pack_linears

NEW_DOMAIN = "sums"
STEPS, RANK = 80, 8
LRS = (1e-3, 3e-3, 1e-2)
TARGETS = {"beside": ["blocks.*"], "beside, head too": ["blocks.*", "lm_head"]}


def adaptation(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Losses before, after adapting by each way at each learning rate, and with the adapters taken off again.

    Raises:
        ValueError: the corpus is not microworld, or the model has seen the new domain already.
    """
    domains, level = corpus.source.get("domains", ()), corpus.source.get("level", 1)
    if corpus.name != "microworld" or NEW_DOMAIN in domains:
        raise ValueError(f"adaptation needs a model of microworld without {NEW_DOMAIN}, got {corpus.name} {domains}")
    new = load_corpus("microworld", level=level, domains=(NEW_DOMAIN,), tokenizer=corpus.tokenizer)

    def losses(pupil: GPT) -> dict[str, float]:
        parts = {"new": new.val, "old": corpus.val}
        return {name: evaluate(pupil, part, max_batches=8).loss for name, part in parts.items()}

    def learn(pupil: GPT, lr: float) -> dict[str, float]:
        settings = {"warmup": 10, "schedule": "constant", "eval_every": STEPS, "eval_batches": 1, "device": "cpu"}
        train(pupil, new, TrainConfig(steps=STEPS, lr=lr, batch_size=8, seed=seed, **settings))
        return losses(pupil)

    has_ternary = any(isinstance(module, BitLinear) for module in model.modules())
    base = pack_linears(model) if has_ternary else copy.deepcopy(model)
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    told: dict[str, Any] = {"domain": NEW_DOMAIN, "steps": STEPS, "rank": RANK, "packed": has_ternary}
    told |= {"before": losses(base), "adapter_parameters": {}, **{way: [] for way in (*TARGETS, "in")}}
    for lr in LRS:
        for way, targets in TARGETS.items():
            adapters = add_lora(base, rank=RANK, targets=targets, seed=seed).values()
            told["adapter_parameters"][way] = sum(a.lora_a.numel() + a.lora_b.numel() for a in adapters)
            told[way].append({"lr": lr, **learn(base, lr)})
            remove_lora(base)
        told["in"].append({"lr": lr, **learn(copy.deepcopy(model), lr)})
    told["removed"] = losses(base)
    state = base.state_dict()
    told["same_bits"] = all(torch.equal(tensor, state[name]) for name, tensor in weights.items())
    return told
