"""Mixtures: several corpora with weights, one tokenizer, and the loss of each.

- Written as `gsm8k:2+microworld:1`: two rows of a batch from GSM8K for every row from microworld. A component may be
  one domain, `m2d2/cs_l1`; without a weight it counts 1.
- Batch number i is a pure function of (seed, i), as everywhere, so a run resumes and is shared out exactly. In every
  batch each component has its share of the rows, to within one.
- Each component keeps its own validation split. The mixture's is all of them together, its mean over tokens, not over
  weights: `component_losses` has them one by one.
- The tokens of a mixture are held in memory, not mapped from files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kancourse.gpt import GPT
from kancourse.lab.batches import DocumentWindows, RandomWindows
from kancourse.lab.corpus import Corpus, finish, prepare, with_domain
from kancourse.lab.device import Device
from kancourse.lab.documents import first_characters
from kancourse.lab.evaluate import Evaluation, evaluate
from kancourse.lab.token_cache import open_or_build
from kancourse.lab.tokenise import BPE_TRAINING_CHARACTERS, Prepared, recipe
from kancourse.lab.tokenizers import Tokenizer, train_tokenizer
from kancourse.lab.tokens import TokenArray

_CHOICE = 1 << 63  # so that the choice of a component has random numbers of its own
_LEARNED = ("bpe", "characters", "characters+unknown")


class Component(NamedTuple):
    """One corpus of a mixture: how it was named, its share (of 1), and the corpus."""

    name: str
    share: float
    corpus: Corpus


@dataclass(kw_only=True, eq=False)
class Mixture(Corpus):
    """Several corpora as one.

    Attributes:
        components: the corpora and their shares.
    """

    components: tuple[Component, ...]

    def sampler(self, block_size: int, batch_size: int, *, seed: int = 0) -> "MixedWindows":
        """Training batches whose rows come from the components by their shares."""
        samplers = [part.corpus.sampler(block_size, batch_size, seed=seed) for part in self.components]
        return MixedWindows(samplers, [part.share for part in self.components], seed)

    def describe(self) -> dict:
        """As any corpus; and each component as it describes itself, with its share."""
        parts = [{"name": part.name, "share": part.share} | part.corpus.describe() for part in self.components]
        return super().describe() | {"components": parts}


class MixedWindows:
    """Rows from several samplers.

    Args:
        samplers: of the components, all of one batch size and one seed.
        shares: of the rows, adding up to 1.
        seed: of the choice.
    """

    def __init__(self, samplers: Sequence[DocumentWindows | RandomWindows], shares: Sequence[float], seed: int):
        self.samplers, self.edges, self.seed = samplers, np.cumsum(shares), seed
        self.batch_size, self.block_size = samplers[0].batch_size, samplers[0].block_size

    def which(self, i: int) -> np.ndarray:
        """(B,) the component that each row of batch i comes from."""
        draw = np.random.Generator(np.random.Philox(key=np.array([self.seed ^ _CHOICE, i], dtype=np.uint64)))
        points = (draw.random() + np.arange(self.batch_size)) / self.batch_size  # evenly spread over [0, 1)
        return draw.permutation(np.minimum(np.searchsorted(self.edges, points, side="right"), len(self.samplers) - 1))

    def batch(self, i: int, *, rank: int = 0, world_size: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `i`, or rank's share of its rows, as the samplers' own `batch`."""
        batches = [sampler.batch(i, rank=rank, world_size=world_size) for sampler in self.samplers]
        rows = len(batches[0][0])
        which = torch.from_numpy(self.which(i)[rank * rows : (rank + 1) * rows])
        x, y = (torch.stack(parts)[which, torch.arange(rows)] for parts in zip(*batches, strict=True))
        return x, y


def parse_mixture(name: str) -> list[tuple[str, float]]:
    """Names and shares of `a:2+b:1`; the shares add up to 1.

    Raises:
        ValueError: an empty name, or a weight that is no number above 0.
    """
    weights = []
    for part in name.split("+"):
        corpus, colon, weight = part.strip().rpartition(":")
        if not colon:
            corpus, weight = weight, "1"
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not corpus.strip() or not 0 < value < float("inf"):
            raise ValueError(f"a mixture is written like gsm8k:2+microworld:1, with weights above 0, not {name!r}")
        weights.append((corpus.strip(), value))
    total = sum(weight for _, weight in weights)
    return [(corpus, weight / total) for corpus, weight in weights]


def load_mixture(name: str, tokenizer: str | Tokenizer, vocab_size: int, options: dict[str, Any]) -> Mixture:
    """Load every component, with one tokenizer for all.

    Args:
        name: see `parse_mixture`.
        tokenizer: as for `load_corpus`; one that is learned, learns from all components by their shares. "auto": the
            components' own where all agree on one that is not learned, else "bpe".
        vocab_size: of "bpe".
        options: the other arguments of `load_corpus`, which go to each component that has them.

    Raises:
        ValueError: as `load_corpus`, or a mixture that is not written as one.
    """
    parts = parse_mixture(name)
    prepared = [prepare(part, **_for(part, options)) for part, _ in parts]
    shared = _tokenizer(prepared, [share for _, share in parts], tokenizer, vocab_size)
    components = tuple(
        # A file by its name, for a record holds no folder of anybody's machine.
        Component(part if with_domain(part, None)[1] else text.name, share, finish(text, shared, vocab_size))
        for (part, share), text in zip(parts, prepared, strict=True)
    )
    corpora = [part.corpus for part in components]
    return Mixture(
        name="+".join(f"{part.name}:{part.share:.3g}" for part in components),
        licence="; ".join(dict.fromkeys(corpus.licence for corpus in corpora)),
        source={part.name: part.corpus.source for part in components},
        note="; ".join(f"{part.name}: {part.corpus.note}" for part in components if part.corpus.note),
        tokenizer=corpora[0].tokenizer,
        train=joined([corpus.train for corpus in corpora]),
        val=joined([corpus.val for corpus in corpora]),
        components=components,
    )


def joined(splits: Sequence[TokenArray]) -> TokenArray:
    """Splits of one vocabulary, one after the other, in memory."""
    ends = np.cumsum([0, *(len(split) for split in splits)])
    known = all(split.log_prob is not None for split in splits)
    return TokenArray(
        ids=np.concatenate([split.ids for split in splits]),
        starts=np.concatenate([split.starts + end for split, end in zip(splits, ends[:-1], strict=True)]),
        eot_id=splits[0].eot_id,
        vocab_size=splits[0].vocab_size,
        n_characters=sum(split.n_characters for split in splits),
        n_bytes=sum(split.n_bytes for split in splits),
        log_prob=sum(split.log_prob for split in splits) if known else None,
    )


def component_losses(
    model: GPT, corpus: Corpus, *, batch_size: int = 32, max_batches: int | None = None, device: Device | None = None
) -> dict[str, Evaluation]:
    """The validation loss on each component of a mixture; on any other corpus, its own under its name."""
    parts = corpus.components if isinstance(corpus, Mixture) else (Component(corpus.name, 1.0, corpus),)
    return {
        part.name: evaluate(model, part.corpus.val, batch_size=batch_size, max_batches=max_batches, device=device)
        for part in parts
    }


def _for(part: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that a component has; microworld has other ones than the rest."""
    if part.split("/")[0] == "microworld":
        return options | {"max_characters": None, "validation_fraction": None}
    return options | {"level": 1}


def _tokenizer(
    prepared: Sequence[Prepared], shares: Sequence[float], tokenizer: str | Tokenizer, vocab_size: int
) -> str | Tokenizer:
    if tokenizer == "auto":
        usual = {text.tokenizer for text in prepared}
        tokenizer = usual.pop() if len(usual) == 1 and not usual & set(_LEARNED) else "bpe"
    if tokenizer not in _LEARNED:
        return tokenizer

    def build(folder: Path) -> dict:
        def training():
            for text, share in zip(prepared, shares, strict=True):
                limit = round(BPE_TRAINING_CHARACTERS * share)
                yield from (
                    first_characters(text.training_texts(), limit) if tokenizer == "bpe" else text.training_texts()
                )

        return {"tokenizer": train_tokenizer(tokenizer, training(), vocab_size=vocab_size).to_dict(), "splits": []}

    made_from = [
        {"source": text.source, "made_from": text.made_from, "share": share}
        for text, share in zip(prepared, shares, strict=True)
    ]
    facts = open_or_build({"tokenizer_of": made_from, "tokenizer": recipe(tokenizer, vocab_size)}, build)
    return Tokenizer.from_dict(facts["tokenizer"])
