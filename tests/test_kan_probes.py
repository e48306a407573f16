"""Forgetting and pruning of a trained model. Run: pytest tests/test_kan_probes.py"""

import pytest
import torch
from torch import nn

from kancourse.lab import forgetting as forgetting_file
from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.evaluate import evaluate
from kancourse.lab.forgetting import equal_gain, forgetting, forgotten_at
from kancourse.lab.kan_probes import SHARES, edge_sizes, pruning, remove_edges
from kancourse.lab.probes import PROBES
from kancourse.zoo import build


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus("microworld")


def small(preset: str, **changes: object) -> nn.Module:
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 214, "block_size": 32, "seed": 0}
    return build(preset, **sizes, **changes).eval()


@pytest.mark.parametrize("preset", ["kan-gpt-nano", "gpt-nano"])
def test_an_edges_size_is_how_far_it_moves_its_output(preset, corpus):
    model = small(preset)
    x, _ = corpus.sampler(32, 4, seed=0).batch(0)
    sizes = edge_sizes(model, x)
    assert sizes.keys() == {f"blocks.0.{seat}" for seat in ("mixer.c_attn", "mixer.c_proj", "ffn.c_fc", "ffn.c_proj")}
    arriving = model.blocks[0].ln_1(model._embed(x, start=0)).flatten(0, 1)  # (N, I)
    layer = model.blocks[0].mixer.c_attn
    for o, i in ((0, 0), (5, 3)):
        alone = torch.zeros_like(arriving)
        alone[:, i] = arriving[:, i]
        sent = layer(alone)[:, o]  # the other inputs are 0, so their edges add a constant
        assert float(sizes["blocks.0.mixer.c_attn"][o, i]) == pytest.approx(float(sent.detach().std()), rel=0.02)


@pytest.mark.parametrize("preset", ["kan-gpt-nano", "gpt-nano"])
def test_pruning_takes_the_small_edges_and_leaves_the_model_alone(preset, corpus):
    model = small(preset)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = pruning(model, corpus, 0)
    assert told["share"] == list(SHARES)
    assert told["val_loss"][0] == pytest.approx(evaluate(model, corpus.val, max_batches=12).loss, abs=1e-6)
    assert told["edges"] == 12 * 8 * 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    layer, x = model.blocks[0].ffn.c_fc, torch.randn(5, 8)
    remove_edges(layer, torch.zeros(32, 8, dtype=torch.bool))
    silent = layer(x)
    torch.testing.assert_close(silent, silent[:1].expand_as(silent))  # nothing but a bias is left


def test_forgetting_trains_a_copy_on_one_domain(monkeypatch, corpus):
    monkeypatch.setattr(forgetting_file, "STEPS", 4)
    monkeypatch.setattr(forgetting_file, "EVERY", 2)
    model = small("gpt-nano")
    before = model.wte.weight.clone()
    told = forgetting(model, corpus, 0)
    assert told["step"] == [0, 2, 4]
    assert told["new"][-1] < told["new"][0]
    assert len(told["others"]) == 3
    assert torch.equal(model.wte.weight, before)
    assert told == forgetting(model, corpus, 0)


def test_what_cannot_be_probed_says_so(corpus):
    with pytest.raises(ValueError, match="forgetting needs microworld with sums and another domain"):
        forgetting(small("gpt-nano"), load_corpus("microworld", domains=("sums",)), 0)
    with pytest.raises(ValueError, match="the blocks hold neither"):
        pruning(small("kan-gpt-nano", linear="shared_kan", ffn="mlp"), corpus, 0)


def test_both_are_known_by_name():
    assert PROBES["forgetting"] is forgetting
    assert PROBES["pruning"] is pruning


def test_forgetting_is_compared_where_all_have_gained_as_much():
    slow = {"new": [2.0, 1.9, 1.8], "others": [1.0, 1.1, 1.4]}
    fast = {"new": [3.0, 2.0, 1.5], "others": [1.5, 1.9, 2.9]}
    gain = equal_gain([slow, fast])
    assert gain == pytest.approx(0.2)
    assert forgotten_at(slow, gain) == pytest.approx(0.4)
    assert forgotten_at(fast, gain) == pytest.approx(0.2 * 0.4)  # a fifth of its first step
    with pytest.raises(ValueError, match=r"this run gains 0.2000 nats at most, not 0.5000"):
        forgotten_at(slow, 0.5)
