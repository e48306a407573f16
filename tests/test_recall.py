"""Recall over distance, as a probe. Run: pytest tests/test_recall.py"""

import math
from types import SimpleNamespace

import pytest
import torch

from kancourse.lab import recall as module
from kancourse.lab.corpus import load_corpus
from kancourse.lab.microworld import prompts
from kancourse.lab.probes import PROBES
from kancourse.lab.recall import EDGES, answer_scores, recall
from kancourse.zoo import build


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("microworld", level=1)


class Knowing(torch.nn.Module):
    """Knows every answer of some prompts, or every second one: a right model to measure with."""

    def __init__(self, asked, tokenizer, step=1):
        super().__init__()
        self.wte = torch.nn.Embedding(tokenizer.vocab_size, 1)
        self.config = SimpleNamespace(block_size=512)
        texts = [[tokenizer.eot_id, *tokenizer.encode(p.text + p.answer)] for p in asked]
        self.known = {tuple(ids[:n]): ids[n] for ids in texts[::step] for n in range(1, len(ids))}

    def forward(self, idx):
        logits = torch.zeros(*idx.shape, self.wte.num_embeddings)
        for b, row in enumerate(idx.tolist()):
            for t in range(len(row)):
                if tuple(row[: t + 1]) in self.known:
                    logits[b, t, self.known[tuple(row[: t + 1])]] = 30.0
        return logits


def test_who_knows_is_right_and_who_does_not_pays_ln_v_per_token(corpus):
    asked = prompts(1, 0, 40, domains=("stories",))
    right, loss = answer_scores(Knowing(asked, corpus.tokenizer), asked, corpus.tokenizer, batch_size=7)
    assert (right == 1).all()
    assert loss.max() < 1e-6
    right, loss = answer_scores(Knowing(asked, corpus.tokenizer, step=2), asked, corpus.tokenizer)
    assert (right[::2] == 1).all()
    assert right[1::2].mean() < 0.3
    tokens = torch.tensor([len(corpus.tokenizer.encode(p.answer)) for p in asked])
    unknown = right == 0
    expected = tokens * math.log(corpus.tokenizer.vocab_size)
    torch.testing.assert_close(loss[unknown], expected[unknown].double(), atol=1e-4, rtol=0)


def test_scores_do_not_depend_on_the_batch(corpus):
    asked = prompts(1, 0, 23, domains=("stories",))
    model = build("retnet-nano", vocab_size=corpus.tokenizer.vocab_size, seed=0).double()
    one, many = (answer_scores(model, asked, corpus.tokenizer, batch_size=n)[1] for n in (1, 23))
    torch.testing.assert_close(one, many)
    assert model.training


def test_the_probe_counts_every_prompt_once(corpus, monkeypatch):
    monkeypatch.setattr(module, "N_PROMPTS", 60)
    model = build("retnet-nano", vocab_size=corpus.tokenizer.vocab_size, seed=0)
    told = PROBES["recall"](model, corpus, 0)
    assert sum(told["n"]) == told["n_all"] == 60
    assert told["distance"] == list(EDGES)
    mean = sum(n * loss for n, loss in zip(told["n"], told["loss"], strict=True) if n) / 60
    assert mean == pytest.approx(told["loss_all"])
    assert told["right_all"] < 0.2  # untrained: it knows nothing
    assert recall(model, corpus, 1) == told


def test_a_corpus_without_stories_is_one_clear_error(corpus):
    model = build("retnet-nano", vocab_size=corpus.tokenizer.vocab_size, seed=0)
    with pytest.raises(ValueError, match="recall needs microworld with stories, got microworld"):
        recall(model, load_corpus("microworld", domains=("sums",)), 0)
