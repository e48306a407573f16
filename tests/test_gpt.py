"""The GPT: attention, cache, initialisation, loss, and two independent oracles. Run: pytest tests/test_gpt.py"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kancourse.gpt import GPT, IGNORE, GPTConfig, naive_attention, residual_projections, rope
from kancourse.zoo import build

SMALL = {"vocab_size": 37, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 16}


def tokens(*shape: int, vocab_size: int = 37, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@given(B=st.integers(1, 3), H=st.integers(1, 3), T=st.integers(1, 9), D=st.integers(1, 7), seed=st.integers(0, 99))
def test_fused_attention_equals_the_formula_in_value_and_gradient(B, H, T, D, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, H, T, D, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3))
    direction = torch.randn(B, H, T, D, generator=generator, dtype=torch.float64)
    fast = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    slow = naive_attention(q, k, v)
    torch.testing.assert_close(fast, slow)
    for a, b in zip(
        torch.autograd.grad((fast * direction).sum(), (q, k, v)),
        torch.autograd.grad((slow * direction).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@given(shift=st.integers(0, 5000), m=st.integers(0, 500), n=st.integers(0, 500))
def test_rotated_dot_products_see_only_distance(shift, m, n):
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator)

    def score(a: int, b: int) -> torch.Tensor:
        return (rope(q, torch.tensor([a])) * rope(k, torch.tensor([b]))).sum()

    torch.testing.assert_close(score(m, n), score(m + shift, n + shift), atol=5e-3, rtol=0)
    torch.testing.assert_close(rope(q, torch.tensor([m])).norm(), q.norm())


@pytest.mark.parametrize("preset", ["gpt-nano", "llama-nano"])
@pytest.mark.parametrize("cut", [1, 5, 11])
def test_steps_from_a_cache_equal_the_full_forward(preset, cut):
    model = build(preset, vocab_size=37, block_size=12, seed=3).double().eval()
    idx = tokens(2, 12)
    logits, state = model.step(idx[:, :cut])
    parts = [logits]
    for t in range(cut, 12):
        logits, state = model.step(idx[:, t : t + 1], state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(idx))
    assert state.length == 12


def test_prefill_in_pieces_and_forward_from_a_state_equal_the_full_forward():
    model = build("llama-nano", vocab_size=37, block_size=12, seed=3).double().eval()
    idx = tokens(2, 12)
    first, state = model.step(idx[:, :5])
    second, _ = model.step(idx[:, 5:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), model(idx))
    mixer, x = model.blocks[0].mixer, torch.randn(2, 9, 48, dtype=torch.float64)
    _, cache = mixer.step(x[:, :4], mixer.empty_state(2, x.device, x.dtype))
    torch.testing.assert_close(mixer(x[:, 4:], cache), mixer(x)[:, 4:])


@pytest.mark.parametrize("preset", ["gpt-nano", "llama-nano"])
@pytest.mark.parametrize("t", [0, 4, 10])
def test_no_position_sees_the_future(preset, t):
    model = build(preset, vocab_size=37, block_size=12, seed=0).eval()
    idx = tokens(1, 12)
    changed = idx.clone()
    changed[0, t + 1 :] = (changed[0, t + 1 :] + 1) % 37
    before, after = model(idx)[0], model(changed)[0]
    assert torch.equal(before[: t + 1], after[: t + 1])
    assert not torch.allclose(before[t + 1], after[t + 1])


def test_initialisation_is_the_table():
    model = GPT(GPTConfig(vocab_size=1000, block_size=64, n_layer=8, n_head=4, n_embd=256))
    written = residual_projections(model)
    assert len(written) == 16
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        if name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            want = 0.02 / math.sqrt(16) if owner in written else 0.02
            assert parameter.std().item() == pytest.approx(want, rel=0.02), name
            assert abs(parameter.mean().item()) < want / 10, name


def test_a_foreign_residual_matrix_is_scaled_or_refused():
    class Foreign(torch.nn.Module):
        def __init__(self, in_features, out_features, bias=True):
            super().__init__()
            self.in_features = in_features
            self.weight = torch.nn.Parameter(torch.ones(out_features, in_features))

        def forward(self, x):
            return x @ self.weight.T

    class Scaled(Foreign):
        def scale_output_(self, factor):
            self.weight.data.mul_(factor)

    model = GPT(GPTConfig(**SMALL), linear=Scaled)
    assert model.blocks[0].mixer.c_proj.weight[0, 0].item() == pytest.approx(1 / math.sqrt(4))
    assert model.blocks[0].mixer.c_attn.weight[0, 0].item() == 1
    with pytest.raises(TypeError, match=r"blocks.0.mixer.c_proj is a Foreign, which has no scale_output_"):
        GPT(GPTConfig(**SMALL), linear=Foreign)


@pytest.mark.parametrize("preset", ["gpt-micro", "llama-micro"])
@pytest.mark.parametrize("vocab_size", [65, 5000])
def test_the_first_loss_is_near_ln_v(preset, vocab_size):
    model = build(preset, vocab_size=vocab_size, seed=0)
    x, y = tokens(4, 64, vocab_size=vocab_size), tokens(4, 64, vocab_size=vocab_size, seed=1)
    assert model.loss(x, y).item() == pytest.approx(math.log(vocab_size), abs=0.1)


@pytest.mark.parametrize("budget", [37, 100, 37 * 23])
def test_chunked_loss_equals_the_whole_in_value_and_gradient(budget):
    model = build("llama-nano", **(SMALL | {"n_head": 2}), seed=0).double()
    x, y = tokens(2, 12), tokens(2, 12, seed=1)
    y[0, :5] = IGNORE
    whole = model.loss(x, y)
    want = torch.autograd.grad(whole, model.parameters())
    chunked = model.loss(x, y, logit_budget=budget)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(torch.autograd.grad(chunked, model.parameters()), want, strict=True):
        torch.testing.assert_close(a, b)


def test_chunked_loss_keeps_fewer_bytes():
    from kancourse.lab.meters import saved_tensor_bytes

    model = build("gpt-nano", vocab_size=20_000, block_size=64, seed=0)
    x = tokens(8, 64)
    whole = saved_tensor_bytes(lambda: model.loss(x, x), ignore=model)
    chunked = saved_tensor_bytes(lambda: model.loss(x, x, logit_budget=20_000 * 32), ignore=model)
    assert chunked < whole / 5


def test_padding_enters_no_loss():
    model = build("gpt-nano", **(SMALL | {"n_head": 2}), seed=0).double()
    x, y = tokens(2, 12), tokens(2, 12, seed=1)
    alone = model.loss(x[:, :7], y[:, :7])
    y[:, 7:] = IGNORE
    torch.testing.assert_close(model.loss(x, y), alone)


@pytest.mark.parametrize("tie", [True, False])
def test_tied_head_is_the_embedding(tie):
    model = GPT(GPTConfig(**SMALL, tie_head=tie))
    assert (model.lm_head.weight is model.wte.weight) == tie


def test_dropout_acts_in_training_only():
    model = build("gpt-nano", vocab_size=37, block_size=12, dropout=0.5, seed=0)
    idx = tokens(1, 12)
    model.eval()
    assert torch.equal(model(idx), model(idx))
    model.train()
    assert not torch.equal(model(idx), model(idx))


def test_equals_gpt2_of_transformers():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=37, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # away from the small start, so that a mistake would show
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    ours = GPT(GPTConfig(**SMALL)).eval()
    names = {"transformer.h.": "blocks.", "transformer.": "", ".attn.": ".mixer.", ".mlp.": ".ffn."}
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        is_conv1d = name.endswith("weight") and name.split(".")[-2].startswith("c_")
        state[name] = tensor.T if is_conv1d else tensor
    ours.load_state_dict(state)
    idx = tokens(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-4, rtol=1e-4)


def test_pinned_loss():
    """One number under a fixed seed: changes when anything in the forward pass or the initialisation changes."""
    loss = build("gpt-nano", vocab_size=37, block_size=12, seed=0).loss(tokens(2, 12), tokens(2, 12, seed=1))
    assert loss.item() == pytest.approx(3.642592, abs=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_embd": 100, "n_head": 3}, "n_embd 100 is not divisible by n_head 3"),
        ({"position": "sinusoid"}, "unknown position 'sinusoid'; known: learned, rope, none"),
        ({"n_embd": 6, "n_head": 2, "position": "rope"}, "head_dim 3"),
        ({"n_layer": 0}, "n_layer must be at least 1, got 0"),
        ({"ffn_dim": 0}, "ffn_dim must be at least 1 or None, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_bad_sizes_are_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**(SMALL | change))


def test_too_long_a_sequence_is_one_clear_error():
    model = GPT(GPTConfig(**SMALL))
    with pytest.raises(ValueError, match="sequence of 13 tokens is longer than block_size 12"):
        model(tokens(1, 13))
    _, state = model.step(tokens(1, 10))
    with pytest.raises(ValueError, match="10 tokens seen and 3 new do not fit the context of 12"):
        model.step(tokens(1, 3), state)
