"""Growing keeps the function, whatever grows and in which order, and nothing is born dead."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kancourse.gpt import GPT, GPTConfig
from kancourse.growth import grow
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.zoo import ModelConfig, build

V, T = 37, 12
GROWTHS = {
    "depth": {"n_layer": 4},
    "heads": {"n_head": 3},
    "head size": {"head_dim": 16},
    "feed-forward": {"ffn_dim": 80},
    "vocabulary": {"vocab_size": 50},
    "all at once": {"n_layer": 3, "n_head": 3, "head_dim": 24, "ffn_dim": 200, "vocab_size": 41},
}
KINDS = [
    {"position": position, "norm": norm, "ffn": ffn, "tie_head": tie, "bias": bias}
    for position, norm, ffn, tie, bias in itertools.product(
        ("learned", "rope", "none"), ("layer", "rms"), ("mlp", "swiglu"), (True, False), (True, False)
    )
]
ROTARY = {"position": "rope", "norm": "rms", "tie_head": True, "bias": False}
KINDS += [ROTARY | {"ffn": "elephant", "ffn_options": {"a": 0.3}}, ROTARY | {"ffn": "x_elephant"}]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(str(value) for value in kind.values()))


def model_of(kind: dict, *, dtype: torch.dtype = torch.float64, size: float = 0.2) -> GPT:
    """A small GPT away from its quiet start: `size` of noise on every weight."""
    config = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": V, "block_size": T} | kind
    model = build(ModelConfig(**config), seed=0).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator).to(dtype))
    return model


def tokens(*shape: int, vocab_size: int = V, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def change(before: GPT, after: GPT, idx: torch.Tensor) -> float:
    """The largest change of an old logit."""
    return (after(idx)[..., : before.config.vocab_size] - before(idx)).abs().max().item()


def tolerance(model: GPT) -> float:
    return 1e-12 if model.wte.weight.dtype == torch.float64 else 1e-5


# --- the function stays ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@kinds
def test_growing_changes_no_old_logit(kind, dtype):
    model, idx = model_of(kind, dtype=dtype), tokens(3, T)
    assert model(idx).std() > 0.5  # large enough for a mistake to show
    for name, sizes in GROWTHS.items():
        grown = grow(model, **sizes)
        assert change(model, grown, idx) <= tolerance(model), name
        assert change(model, grown, idx) <= tolerance(model), f"{name}, second forward"
        assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in model.parameters())
        for part, size in sizes.items():
            assert getattr(grown.config, part) == size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", KINDS[::3], ids=str)
def test_a_grown_model_is_an_ordinary_one(kind, dtype, tmp_path):
    """It is what its config builds, survives being saved, and decodes step by step."""
    model, idx = model_of(kind, dtype=dtype), tokens(2, T)
    grown = grow(model, **GROWTHS["all at once"])
    again = build(grown.config).to(dtype).eval()
    again.load_state_dict(grown.state_dict())
    torch.testing.assert_close(again(idx), grown(idx), atol=0, rtol=0)
    assert repr(again) == repr(grown)
    assert (grown.lm_head.weight is grown.wte.weight) == kind["tie_head"]

    loaded = load_checkpoint(save_checkpoint(tmp_path / "grown.safetensors", grown)).model
    assert loaded.config == grown.config
    if dtype == torch.float32:  # what a checkpoint holds
        assert change(model, loaded, idx) <= tolerance(model)

    first, state = grown.step(idx[:, :5])
    second, _ = grown.step(idx[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), grown(idx))


@st.composite
def histories(draw):
    """A kind of model, and how it grows, step by step, each from the sizes before."""
    kind = draw(st.sampled_from(KINDS))
    size = {"n_layer": 1, "n_head": draw(st.integers(1, 3)), "head_dim": draw(st.sampled_from((2, 4, 6)))}
    size |= {"ffn_dim": draw(st.integers(1, 20)), "vocab_size": V}
    start, steps = dict(size), []
    for _ in range(draw(st.integers(1, 5))):
        step = {}
        for part in draw(st.lists(st.sampled_from(list(size)), min_size=1, max_size=3, unique=True)):
            if part == "head_dim":
                step[part] = size[part] * draw(st.integers(1, 2)) if size[part] < 24 else size[part]
            else:
                step[part] = size[part] + draw(st.integers(0, 3))
        size |= step
        steps.append(step)
    return kind, start, steps


@settings(max_examples=40)
@given(histories(), st.sampled_from((torch.float64, torch.float32)))
def test_every_combination_in_every_order_keeps_the_function(history, dtype):
    kind, start, steps = history
    head_dim = start.pop("head_dim")
    first = model_of(kind | start | {"n_embd": start["n_head"] * head_dim}, dtype=dtype)
    idx, model = tokens(2, T), first
    for step in steps:
        model = grow(model, **step)
        assert change(first, model, idx) <= tolerance(first)
    again = build(model.config).to(dtype).eval()
    again.load_state_dict(model.state_dict())
    assert change(first, again, idx) <= tolerance(first)


@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize("norm", ["layer", "rms", "none"])
def test_wider_heads_of_awkward_sizes(position, norm):
    model = model_of({"position": position, "norm": norm, "n_head": 3, "n_embd": 18})
    for head_dim in (6, 12, 18, 30) if position == "rope" else (6, 7, 9, 16):
        assert change(model, grow(model, head_dim=head_dim), tokens(2, T)) <= 1e-12


def test_norms_without_gains_to_correct():
    """BitNet-like blocks leave normalisation to their matrices: only the last norm is one."""
    model = model_of({"norm": "rms", "block_norm": "none", "n_layer": 1}, size=0.1)
    grown = grow(model, n_head=4, n_layer=2)
    assert change(model, grown, tokens(2, T)) <= 1e-12
    assert change(model, load_twin(grown), tokens(2, T)) <= 1e-12


def load_twin(model: GPT) -> GPT:
    twin = build(model.config).double().eval()
    twin.load_state_dict(model.state_dict())
    return twin


def test_a_model_without_names_for_its_parts_grows_too():
    model = GPT(GPTConfig(vocab_size=V, block_size=T, n_layer=1, n_head=2, n_embd=8)).double().eval()
    assert change(model, grow(model, n_head=3, n_layer=2), tokens(2, T)) <= 1e-12


# --- and each correction is what keeps it ---


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_without_its_epsilon_a_quiet_stream_would_change(norm):
    """At the size of a fresh embedding, 0.02, epsilon is no small matter."""
    model = build("gpt-nano", vocab_size=V, block_size=T, norm=norm, seed=0).double().eval()
    grown = grow(model, n_head=6)
    assert change(model, grown, tokens(2, T)) <= 1e-12
    for module in grown.modules():
        if hasattr(module, "eps"):
            module.eps *= 2
    assert change(model, grown, tokens(2, T)) > 1e-3 * model(tokens(2, T)).abs().max()


def test_gains_and_keys_are_corrected_by_the_right_factor():
    model = model_of({"position": "rope", "norm": "rms", "bias": True})
    grown = grow(model, head_dim=16)
    torch.testing.assert_close(grown.ln_f.weight[:16], model.ln_f.weight / 2**0.5)
    for parameter, dim in ((grown.ln_f.weight, 0), (grown.blocks[0].mixer.c_attn.weight, 1)):
        before = parameter.detach().clone()
        with torch.no_grad():
            if dim == 0:
                parameter.mul_(2**0.5)
            else:
                parameter[32:64] /= 2**0.5  # the keys
        assert change(model, grown, tokens(2, T)) > 1e-3
        with torch.no_grad():
            parameter.copy_(before)
    assert change(model, grown, tokens(2, T)) <= 1e-12


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_new_coordinates_come_out_of_the_norm_as_zero(norm):
    grown = grow(model_of({"norm": norm, "bias": True}), n_head=3)
    inputs = []
    for norm_layer in (grown.blocks[1].ln_2, grown.ln_f):
        norm_layer.register_forward_hook(lambda _, __, y: inputs.append(y))
    grown(tokens(2, T))
    for y in inputs:
        assert y[..., 16:].abs().max() < 1e-12
        assert y[..., :16].std() > 0.5


def test_the_given_model_and_the_random_state_are_left_alone():
    model = model_of(KINDS[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config, state = model.config, torch.get_rng_state()
    first, second = (grow(model, **GROWTHS["all at once"], generator=torch.Generator().manual_seed(3)) for _ in "ab")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config is config
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {id(p) for p in first.parameters()}.isdisjoint(id(p) for p in model.parameters())
    other = grow(model, **GROWTHS["all at once"], generator=torch.Generator().manual_seed(4))
    assert not torch.equal(first.blocks[0].mixer.c_attn.weight, other.blocks[0].mixer.c_attn.weight)


def test_mode_and_frozen_parameters_stay():
    model = model_of(KINDS[0]).train()
    model.wpe.weight.requires_grad_(False)
    grown = grow(model, n_head=3, n_layer=3)
    assert grown.training
    assert [n for n, p in grown.named_parameters() if not p.requires_grad] == ["wpe.weight"]


def test_the_feed_forward_follows_the_stream_unless_the_config_says_how_wide_it_is():
    assert grow(model_of({}), n_head=4).blocks[0].ffn.c_fc.out_features == 128
    assert grow(model_of({"ffn": "swiglu"}), n_head=4).blocks[0].ffn.c_fc.out_features == 85
    fixed = grow(model_of({"ffn_dim": 48}), n_head=4)
    assert fixed.blocks[0].ffn.c_fc.out_features == fixed.config.ffn_dim == 48


@pytest.mark.parametrize("tie", [True, False])
def test_new_words_start_where_they_are_told(tie):
    model = model_of({"tie_head": tie})
    mean = grow(model, vocab_size=40)
    torch.testing.assert_close(mean.wte.weight[37:], model.wte.weight.mean(0).expand(3, -1))
    torch.testing.assert_close(mean.lm_head.weight[37:], model.lm_head.weight.mean(0).expand(3, -1))
    zero = grow(model, vocab_size=40, new_rows="zero")
    assert zero(tokens(1, T))[..., 37:].abs().max() == 0
    drawn = grow(model, vocab_size=4000, new_rows="random")
    assert drawn.wte.weight[37:].std().item() == pytest.approx(0.02, rel=0.02)


# --- nothing is born dead ---


def two_steps(model: GPT, *, lr: float = 1e-2) -> dict[str, torch.Tensor]:
    """The largest gradient that each number had in two steps of training on a batch with every word and position."""
    vocab_size = model.config.vocab_size
    idx = torch.stack([torch.arange(T) + start for start in range(vocab_size)]) % vocab_size
    targets = tokens(vocab_size, T, vocab_size=vocab_size, seed=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    largest = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(idx, targets).backward()
        for name, p in model.named_parameters():
            largest[name] = largest[name].maximum(p.grad.abs())
        optimizer.step()
    return largest


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k["position"] != "none" and k["bias"] == (k["ffn"] == "mlp")], ids=str
)
def test_every_number_has_a_gradient_within_two_steps(kind):
    model = model_of(kind, size=0.05)
    for name, sizes in GROWTHS.items():
        grown = grow(model, **sizes)
        for parameter, largest in two_steps(grown).items():
            dead = largest < 1e-15
            if parameter.endswith("c_attn.bias") and kind["position"] != "rope":
                n = grown.config.n_embd  # the same number on all keys: softmax never sees it, in any GPT
                dead[n : 2 * n] = False
            assert not dead.any(), f"{name}: {int(dead.sum())} numbers of {parameter} had no gradient"


def test_a_zero_gate_before_a_zero_matrix_is_dead():
    """Two zero factors: neither has a gradient while the other is zero, so both stay zero for ever."""
    grown = grow(model_of({"ffn": "swiglu", "bias": False}), ffn_dim=64)
    old, ffn = 43, grown.blocks[0].ffn
    with torch.no_grad():
        ffn.c_gate.weight[old:] = 0
    assert ffn.c_proj.weight[:, old:].abs().max() == 0
    optimizer = torch.optim.AdamW(grown.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(20):
        optimizer.zero_grad()
        grown.loss(tokens(4, T, seed=step), tokens(4, T, seed=step + 100)).backward()
        for gradient in (ffn.c_gate.weight.grad[old:], ffn.c_fc.weight.grad[old:], ffn.c_proj.weight.grad[:, old:]):
            assert gradient.abs().max() == 0
        assert ffn.c_gate.weight.grad[:old].abs().max() > 0
        optimizer.step()
    assert ffn.c_gate.weight[old:].abs().max() == ffn.c_proj.weight[:, old:].abs().max() == 0


# --- wrong input ---


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_head": 1}, "a model can only grow: its n_head is 2, got 1"),
        ({"n_layer": 1}, "a model can only grow: its n_layer is 2, got 1"),
        ({"head_dim": 4}, "a model can only grow: its head_dim is 8, got 4"),
        ({"ffn_dim": 42}, "a model can only grow: its ffn_dim is 43, got 42"),
        ({"vocab_size": 0}, "a model can only grow: its vocab_size is 37, got 0"),
        ({"head_dim": 12}, "wider by a whole factor: head_dim is 8, so 16 or 24 would do, 12 does not"),
        ({"new_rows": "ones"}, "unknown new_rows 'ones'; known: mean, zero, random"),
    ],
)
def test_sizes_that_cannot_be_are_one_clear_error(sizes, message):
    model = model_of({"position": "rope", "ffn": "swiglu"})
    with pytest.raises(ValueError, match=message):
        grow(model, **sizes)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"ffn": "kan"}, "grow knows MLP, SwiGLU, ElephantGLU, XElephantGLU as ffn; blocks.0.ffn is a KANFeedForward"),
        ({"mixer": "retention"}, "grow knows CausalSelfAttention as mixer; blocks.0.mixer is a MultiScaleRetention"),
        ({"linear": "bit", "bias": False}, "grow knows dense matrices and norms; blocks.0.mixer.c_attn is a BitLinear"),
        ({"norm": "rms", "block_norm": "layer"}, "only when every norm is one, got LayerNorm and RMSNorm"),
        ({"norm": "rms", "norm_options": {"elementwise_affine": False}}, "one of this model's lacks them"),
    ],
)
def test_parts_that_grow_does_not_know_are_one_clear_error(kind, message):
    config = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": V, "block_size": T, "tie_head": False} | kind
    with pytest.raises(TypeError, match=message):
        grow(build(ModelConfig(**config)), n_layer=2)
    with pytest.raises(TypeError, match="grow takes a kancourse GPT, got a Linear"):
        grow(torch.nn.Linear(2, 2), n_layer=2)
