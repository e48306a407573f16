"""What is measured of experts: labels, information, shares, and the whole probe on a small model.

Run: pytest tests/test_moe_probes.py
"""

import json
import math

import pytest
import torch

from kancourse.lab import moe_probes
from kancourse.lab.corpus import load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.microworld import DOMAINS
from kancourse.lab.moe_probes import CLASSES, Reading, choices, experts, information, losses, shares, token_class
from kancourse.lab.probes import PROBES
from kancourse.moe_tools import mixtures
from kancourse.zoo import build


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("microworld")


def model(corpus, **overrides):
    options = {"n_expert": 4, "top_k": 2, "n_shared": 1}
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32, "seed": 0, "ffn_options": options}
    return build("moe-nano", vocab_size=corpus.tokenizer.vocab_size, **(sizes | overrides)).eval()


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (" Tom", "names"),
        (" ball", "things and places"),
        (" kitchen", "things and places"),
        (" the", "other words"),
        (" 7", "digits"),
        ("?", "signs"),
        ("\n", "layout"),
        ("    ", "layout"),
        ("", "layout"),
    ],
)
def test_token_classes(piece, expected):
    assert token_class(piece) == expected
    assert expected in CLASSES


def test_information_is_0_for_independent_and_the_entropy_for_equal_labels():
    choice = torch.arange(6).repeat(20)[:, None]
    assert information(choice, torch.arange(4).repeat_interleave(30)) == pytest.approx(0, abs=1e-12)
    assert information(choice, choice[:, 0]) == pytest.approx(math.log(6))
    assert information(choice, choice[:, 0] // 3) == pytest.approx(math.log(2))
    assert information(torch.stack([choice[:, 0], choice[:, 0]], 1), choice[:, 0] // 3) == pytest.approx(math.log(2))


def test_shares_add_up_and_are_0_for_a_label_that_never_occurs():
    chosen, label = torch.tensor([[0, 1], [0, 2], [1, 2]]), torch.tensor([0, 0, 2])
    expected = torch.tensor([[0.5, 0.25, 0.25], [0, 0, 0], [0, 0.5, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(shares(chosen, label, 3, 3), expected)


def test_the_documents_are_read_as_the_model_is_scored(corpus):
    reading, net = Reading.of(corpus, 32), model(corpus)
    assert (reading.x[:, 0] == corpus.tokenizer.eot_id).all()
    assert torch.equal(reading.x[:, 1:][reading.read[:, 1:]], reading.y[:, :-1][reading.read[:, 1:]])
    chosen = choices(net, reading)
    assert chosen.shape == (2, int(reading.read.sum()), 2)
    weight = reading.domains().bincount(minlength=len(DOMAINS)) / chosen.size(1)
    assert float((losses(net, reading) * weight).sum()) == pytest.approx(evaluate(net, corpus.val).loss, abs=0.05)


def test_the_probe_says_what_a_crowded_and_a_needed_expert_look_like(corpus, monkeypatch):
    monkeypatch.setattr(moe_probes, "N_BATCH", 5)
    net = model(corpus)
    mixtures(net)[1].router.bias[:2] += 10.0  # all tokens choose the same two
    mixtures(net)[1].experts[1].c_proj.weight.data.normal_(std=3.0)  # and one of them says something
    told = json.loads(json.dumps(PROBES["experts"](net, corpus, 0)))
    assert told["violation"][1] == pytest.approx(1.0)  # 4 experts, 2 with everything
    assert told["violation"][0] < 1.0
    assert told["batch_violation"][0] >= told["violation"][0] > 0
    for name in ("by_domain", "by_class"):
        table = torch.tensor(told[name])
        torch.testing.assert_close(table.sum(-1), torch.ones(table.shape[:2]))
    assert told["information"]["domain"][1][0] == pytest.approx(0, abs=1e-9)  # one choice tells nothing
    measured, shuffled = told["information"]["token"][0]
    assert measured > 5 * shuffled > 0
    single = torch.tensor(told["single"])  # (L, E, domains)
    assert single.shape == (2, 4, len(DOMAINS))
    assert single[1, 1].abs().min() > 10 * single[1, 2:].abs().max()
    assert told["closed"][0] == pytest.approx(sum(told["loss"]) / 4, rel=0.1)
    assert len(told["closed"]) == 3


def test_models_without_experts_and_other_corpora_are_refused(corpus):
    with pytest.raises(ValueError, match="has no mixture of experts"):
        experts(model(corpus, ffn="swiglu", ffn_options={}), corpus, 0)
    other = load_corpus("microworld", domains=("sums",))
    assert set(Reading.of(other, 32).domain.tolist()) == {DOMAINS.index("sums")}
