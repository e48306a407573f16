"""What a trained model's experts do: their load on microworld, what they are for, and what is lost without them.

- *Information* is measured in nats per choice: how much the chosen expert tells about a token's domain, class or id.
  Such estimates from finite counts are too high; the same measure on shuffled labels says by how much.
- Two ways to switch experts off: one of a layer for all tokens, and for each token the best of its own.
- The load is counted on training batches, the rest on the validation documents of microworld's snapshot.

Shapes: D documents, T time, N tokens, L layers, E experts, k chosen per token, V vocabulary.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kancourse.gpt import GPT
from kancourse.lab.corpus import Corpus
from kancourse.lab.microworld import DOMAINS, snapshot
from kancourse.lab.microworld.lexicon import ITEMS, PEOPLE, ROOMS, SPOTS, THINGS
from kancourse.moe_balance import load_violation, sampling_floor
from kancourse.moe_tools import mixtures, routes, without_best, without_experts

CLASSES = ("names", "things and places", "other words", "digits", "signs", "layout")
BATCH, N_BATCH = 16, 60  # training rows per batch, and batches, over which the load is counted


@cache
def _lexicon() -> tuple[frozenset[str], frozenset[str]]:
    """Names, and words for things and places, in lower case."""
    names = {name.lower() for level in PEOPLE.values() for name in level}
    nouns = {
        entry.lower().split()[-1]
        for table in (THINGS, ITEMS, ROOMS, SPOTS)
        for level in table.values()
        for entry in level
    }
    return frozenset(names), frozenset(nouns)


def token_class(piece: str) -> str:
    """Which of CLASSES a piece of text belongs to, by its looks alone; "layout" is blanks, line breaks and the end."""
    word = piece.strip().lower()
    names, nouns = _lexicon()
    if not word:
        return "layout"
    if word in names:
        return "names"
    if word in nouns:
        return "things and places"
    return "other words" if word.isalpha() else "digits" if word.isdigit() else "signs"


@dataclass(kw_only=True)
class Reading:
    """Documents, each by itself, as rows of ids; T is the model's block_size, and longer ones are cut."""

    x: Tensor  # (D, T) ids, the end-of-text first
    y: Tensor  # (D, T) the next ids; -100 after the end
    domain: Tensor  # (D,) numbers of DOMAINS

    @classmethod
    def of(cls, corpus: Corpus, block_size: int) -> "Reading":
        """The snapshot's validation documents of the corpus's level and domains.

        Raises:
            ValueError: the corpus is not microworld.
        """
        if corpus.name != "microworld":
            raise ValueError(f"experts are probed on microworld's domains, got the corpus {corpus.name}")
        tokenizer, rows, domains = corpus.tokenizer, [], []
        for document in snapshot(corpus.source["level"])[1]:
            if document.domain not in corpus.source["domains"]:
                continue
            ids = [tokenizer.eot_id, *tokenizer.encode(document.text), tokenizer.eot_id]
            rows.append((ids + [-100] * block_size)[: block_size + 1])
            domains.append(DOMAINS.index(document.domain))
        rows = torch.tensor(rows)
        return cls(x=rows[:, :-1].clamp(min=0), y=rows[:, 1:], domain=torch.tensor(domains))

    def every(self, n: int) -> "Reading":
        """Every n-th document."""
        return Reading(x=self.x[::n], y=self.y[::n], domain=self.domain[::n])

    @property
    def read(self) -> Tensor:
        """(D, T) of bools: where the model reads a token of the text."""
        return self.y != -100

    def domains(self) -> Tensor:
        """(N,) the domain of each token that is read."""
        return self.domain[:, None].expand_as(self.x)[self.read]

    def classes(self, corpus: Corpus) -> Tensor:
        """(N,) the class of each token that is read."""
        end, decode = corpus.tokenizer.eot_id, corpus.tokenizer.decode
        pieces = ["" if i == end else decode([i]) for i in range(corpus.tokenizer.vocab_size)]
        return torch.tensor([CLASSES.index(token_class(piece)) for piece in pieces])[self.x[self.read]]


def choices(model: GPT, reading: Reading) -> Tensor:
    """The experts chosen by the tokens that are read: (L, N, k)."""
    device = model.wte.weight.device
    parts = [routes(model, x.to(device)).cpu() for x in reading.x.split(BATCH)]
    return torch.cat(parts, dim=1)[:, reading.read]


@torch.no_grad()
def losses(model: GPT, reading: Reading) -> Tensor:
    """Nats per token, by domain: (len(DOMAINS),)."""
    device, total = model.wte.weight.device, torch.zeros(len(DOMAINS), dtype=torch.float64)
    for x, y, domain in zip(*(t.split(BATCH) for t in (reading.x, reading.y, reading.domain)), strict=True):
        loss = F.cross_entropy(model(x.to(device)).flatten(0, 1), y.flatten().to(device), reduction="none")
        total.index_add_(0, domain, loss.view(y.shape).sum(1).double().cpu())
    return total / torch.bincount(reading.domains(), minlength=len(DOMAINS))


def loads(model: GPT, corpus: Corpus, seed: int) -> Tensor:
    """Tokens per expert in training batches, the bias as it is: (batches, L, E)."""
    sampler, counts = corpus.sampler(model.config.block_size, BATCH, seed=seed), []
    for number in range(N_BATCH):
        chosen = routes(model, sampler.batch(number)[0].to(model.wte.weight.device))  # (L, B, T, k)
        counts.append([c.flatten().bincount(minlength=mixtures(model)[0].n_expert) for c in chosen.cpu()])
    return torch.stack([torch.stack(layers) for layers in counts])


def shares(chosen: Tensor, label: Tensor, n_expert: int, n_label: int) -> Tensor:
    """Of the choices made by tokens of each label, the share that went to each expert: (N, k), (N,) → (labels, E)."""
    pairs = (label[:, None] * n_expert + chosen).flatten()
    counts = torch.bincount(pairs, minlength=n_label * n_expert).view(n_label, n_expert).double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)


def information(chosen: Tensor, label: Tensor) -> float:
    """Mutual information, in nats, of a choice and its token's label: (N, k), (N,); 0 when they are independent."""
    n_expert, n_label = int(chosen.max()) + 1, int(label.max()) + 1
    pairs = (label[:, None] * n_expert + chosen).flatten()
    joint = torch.bincount(pairs, minlength=n_label * n_expert).view(n_label, n_expert).double() / pairs.numel()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    there = joint > 0
    return float((joint[there] * (joint[there] / apart[there]).log()).sum())


def experts(model: GPT, corpus: Corpus, seed: int) -> dict[str, Any]:
    """Load, specialisation and necessity of a trained model's experts.

    Args:
        model: with mixtures in its blocks.
        corpus: microworld.
        seed: of the shuffled labels.

    Returns:
        - `violation`, `batch_violation` per layer: of the load over 60 training batches together, and of each on
          average; `floor`: what a perfect router would show per batch, by `sampling_floor`.
        - `by_domain` (L, domains, E) and `by_class` (L, classes, E): shares of choices; `domains`, `classes` name them.
        - `information`: for "domain", "class" and "token", per layer, the measured value and the one after shuffling.
        - `loss`: nats per token by domain; `closed`: all tokens' loss with the n best experts of each token closed,
          n = 0, 1, …; `single` (L, E, domains): the loss added by one expert switched off.

    Raises:
        ValueError: the model has no experts, or the corpus is not microworld.
    """
    layers = mixtures(model)
    n_expert, top_k = layers[0].n_expert, layers[0].top_k
    reading = Reading.of(corpus, model.config.block_size)
    chosen, read = choices(model, reading), reading.read  # (L, N, k), (D, T)
    labels = {"domain": reading.domains(), "class": reading.classes(corpus), "token": reading.x[read]}
    shuffled = torch.randperm(chosen.size(1), generator=torch.Generator().manual_seed(seed))
    weight = torch.bincount(labels["domain"], minlength=len(DOMAINS)).double() / chosen.size(1)
    load = loads(model, corpus, seed)  # (batches, L, E)
    plain = losses(model, reading)
    closed = []
    for n in range(min(top_k + 2, n_expert - top_k + 1)):
        with without_best(model, n):
            closed.append(float((losses(model, reading) * weight).sum()))
    some, single = reading.every(3), []  # as many readings as experts: a third will do
    before = losses(model, some)
    for layer in layers:
        single.append([])
        for number in range(n_expert if n_expert > top_k else 0):
            with without_experts(layer, [number]):
                single[-1].append((losses(model, some) - before).tolist())
    return {
        "violation": load_violation(load.sum(0)).tolist(),
        "batch_violation": load_violation(load).mean(0).tolist(),
        "floor": sampling_floor(BATCH * model.config.block_size, n_expert, top_k),
        "domains": list(DOMAINS),
        "classes": list(CLASSES),
        "by_domain": torch.stack([shares(c, labels["domain"], n_expert, len(DOMAINS)) for c in chosen]).tolist(),
        "by_class": torch.stack([shares(c, labels["class"], n_expert, len(CLASSES)) for c in chosen]).tolist(),
        "information": {
            name: [[information(c, label), information(c, label[shuffled])] for c in chosen]
            for name, label in labels.items()
        },
        "loss": plain.tolist(),
        "closed": closed,
        "single": single,
    }
