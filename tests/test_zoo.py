"""Names → models. Run: pytest tests/test_zoo.py"""

import json
import math

import pytest
import torch

from kancourse.gpt import GPT
from kancourse.kan import KANLinear
from kancourse.zoo import PRESETS, ModelConfig, build, configure


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_its_config_survives_json(name):
    config = PRESETS[name]
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with torch.device("meta"):
        build(config)


@pytest.mark.parametrize(
    ("name", "millions"), [("gpt2", 124.44), ("gpt2-medium", 354.82), ("gpt2-large", 774.03), ("gpt2-xl", 1557.61)]
)
def test_gpt2_sizes_are_openais(name, millions):
    with torch.device("meta"):
        model = build(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_a_kan_gpt_is_nine_times_a_gpts_matrices_and_learns():
    sizes = {"vocab_size": 30, "block_size": 16, "bias": False, "seed": 0}
    kan, plain = build("kan-gpt-nano", **sizes), build("gpt-nano", **sizes)

    def matrices(model):
        return sum(p.numel() for p in model.blocks.parameters() if p.ndim > 1)

    assert matrices(kan) == 9 * matrices(plain)  # grid 5 + order 3 + the base path
    idx = torch.arange(16)[None]
    optimizer = torch.optim.AdamW(kan.parameters(), lr=3e-3)
    first = kan.loss(idx, idx + 1)
    assert first.item() == pytest.approx(math.log(30), abs=0.3)
    for _ in range(20):
        optimizer.zero_grad()
        loss = kan.loss(idx, idx + 1)
        loss.backward()
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in kan.parameters() if p.grad is not None)
    assert loss < first / 2
    kan.eval()
    _, state = kan.step(idx[:, :9])
    torch.testing.assert_close(kan.step(idx[:, 9:], state)[0], kan(idx)[:, 9:], atol=1e-4, rtol=1e-4)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = build("gpt-nano", seed=1), build("gpt-nano", seed=1), build("gpt-nano", seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.wte.weight, second.wte.weight)
    assert not torch.equal(first.wte.weight, other.wte.weight)


def test_presets_are_not_changed_by_overrides():
    assert build("gpt-nano", vocab_size=65).config.vocab_size == 65
    assert PRESETS["gpt-nano"].vocab_size == 256
    assert configure("gpt-nano", n_layer=1).n_layer == 1


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("gpt-pico", {}, "unknown preset 'gpt-pico'; known: gpt-nano, gpt-micro"),
        ("gpt-nano", {"n_layers": 2}, "has no field 'n_layers'; did you mean 'n_layer'"),
        ("gpt-nano", {"ffn": "mpl"}, "unknown ffn 'mpl'; known: mlp, swiglu, "),
        ("gpt-nano", {"mixer": "conv"}, "unknown mixer 'conv'; known: attention"),
    ],
)
def test_what_does_not_exist_is_one_clear_error(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(name, **overrides)


def test_a_kan_head_starts_with_logits_as_small_as_a_matrix_gives():
    sizes = {"vocab_size": 300, "block_size": 16, "tie_head": False, "seed": 0}
    idx = torch.arange(64).view(4, 16)
    spread = [build("gpt-nano", **sizes, **more)(idx).std().item() for more in ({}, {"head": "kan"})]
    assert spread[1] == pytest.approx(spread[0], rel=0.25)
    saved = configure("gpt-nano", tie_head=False, head="kan", head_options={"grid_size": 3})
    assert build(ModelConfig.from_dict(saved.to_dict())).lm_head.spline_weight.size(-1) == 6


def test_a_head_of_another_kind_is_not_tied():
    with pytest.raises(ValueError, match="head 'kan' cannot be tied to the embedding"):
        configure("gpt-nano", head="kan")
    with pytest.raises(ValueError, match="a KANLinear head cannot share the embedding"):
        GPT(ModelConfig(), head=KANLinear)


def test_blocks_may_leave_normalisation_to_their_matrices():
    model = build("llama-nano", block_norm="none")
    assert not [name for name, module in model.blocks.named_modules() if isinstance(module, torch.nn.RMSNorm)]
    assert isinstance(model.ln_f, torch.nn.RMSNorm)
