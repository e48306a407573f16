"""Retention: three forms of one sum, the mixer around it, and what is refused. Run: pytest tests/test_retention.py"""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kancourse.attention import KVCache
from kancourse.gpt import GPT, GPTConfig
from kancourse.retention import (
    DECAYS,
    MultiScaleRetention,
    RetentionState,
    chunkwise_retention,
    naive_retention,
    parallel_retention,
    recurrent_retention,
    retention_decay,
)

CHUNKS = (1, 7, 64, 1000, 4096, 5000)


def inputs(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, v_dim: int | None = None):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, *shape, generator=generator, dtype=dtype)
    return q, k, torch.randn(*shape[:-1], v_dim or shape[-1], generator=generator, dtype=dtype)


def token_decay(B: int, H: int, T: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.logsigmoid(3 * torch.randn(B, H, T, generator=generator, dtype=dtype)) / 4


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference of each head by that head's largest value; the worst head."""
    return ((got - want).abs().amax((2, 3)) / want.abs().amax((2, 3))).max().item()


def test_decays_are_the_papers():
    decay = retention_decay(30)
    exact = torch.tensor([math.log1p(-(2.0 ** -(5 + h))) for h in range(30)], dtype=torch.float64)
    assert decay.dtype == torch.float32
    torch.testing.assert_close(decay.double(), exact, rtol=1e-7, atol=0)
    assert (decay < 0).all()  # a bfloat16 γ would have been 1 from the fifth head on
    assert (decay.exp().bfloat16()[4:] == 1).all()
    assert -math.log(2) / decay[0].item() == pytest.approx(22, abs=0.5)


@given(
    B=st.integers(1, 2),
    H=st.integers(1, 3),
    T=st.integers(1, 11),
    D=st.integers(1, 5),
    v_dim=st.integers(1, 5),
    chunk=st.integers(1, 13),
    cut=st.integers(0, 10),
    gated=st.booleans(),
    seed=st.integers(0, 99),
)
def test_all_forms_equal_the_formula_in_value_and_gradient(B, H, T, D, v_dim, chunk, cut, gated, seed):
    q, k, v = (x.requires_grad_() for x in inputs(B, H, T, D, seed=seed, dtype=torch.float64, v_dim=v_dim))
    decay = token_decay(B, H, T, seed, torch.float64) if gated else retention_decay(H).double()
    decay.requires_grad_()
    direction = torch.randn(B, H, T, v_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def pieces(form, **options):  # through a state, at an awkward place
        if cut % T == 0:
            return form(q, k, v, decay, **options)[0]
        first, state = form(
            *(x[:, :, : cut % T] for x in (q, k, v)), decay[..., : cut % T] if gated else decay, **options
        )
        rest = [x[:, :, cut % T :] for x in (q, k, v)]
        last, _ = form(*rest, decay[..., cut % T :] if gated else decay, state=state, **options)
        return torch.cat((first, last), dim=2)

    want = naive_retention(q, k, v, decay)
    gradients = torch.autograd.grad((want * direction).sum(), (q, k, v, decay), materialize_grads=True)
    for got in (
        parallel_retention(q, k, v, decay),
        pieces(recurrent_retention),
        pieces(chunkwise_retention, chunk_size=chunk),
    ):
        torch.testing.assert_close(got, want)
        found = torch.autograd.grad((got * direction).sum(), (q, k, v, decay), materialize_grads=True)
        for a, b in zip(found, gradients, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_forms_agree_in_float32_at_4096_tokens_whatever_the_chunk_and_the_scale(scale):
    q, k, v = (scale * x for x in inputs(1, 3, 4096, 16))
    decay = retention_decay(8)[[0, 3, 7]]
    want, memory = recurrent_retention(q, k, v, decay)
    parallel = parallel_retention(q, k, v, decay)
    assert relative(parallel, want) < 1e-5
    for chunk_size in CHUNKS:
        got, state = chunkwise_retention(q, k, v, decay, chunk_size=chunk_size)
        assert relative(got, want) < 1e-5
        assert relative(got, parallel) < 1e-5
        assert relative(state, memory) < 1e-5
        normed = [F.rms_norm(x / scale**3, (16,), eps=1e-6) for x in (got, want)]
        torch.testing.assert_close(*normed, atol=2e-5, rtol=0)


def test_gated_forms_agree_in_float32_at_4096_tokens():
    q, k, v = inputs(1, 3, 4096, 16)
    decay = token_decay(1, 3, 4096)
    want, _ = recurrent_retention(q, k, v, decay)
    assert relative(parallel_retention(q, k, v, decay), want) < 1e-5
    for chunk_size in (1, 7, 64, 256):
        assert relative(chunkwise_retention(q, k, v, decay, chunk_size=chunk_size)[0], want) < 1e-5


def test_finite_and_the_same_at_position_100_000():
    q, k, v = inputs(1, 3, 100_001, 4)
    decay = retention_decay(16)[[0, 7, 15]]  # the last forgets half in 700,000 tokens
    with torch.no_grad():
        slow, memory = recurrent_retention(q, k, v, decay)
        fast, state = chunkwise_retention(q, k, v, decay, chunk_size=512)
    assert torch.isfinite(slow).all()
    assert relative(fast[:, :2], slow[:, :2]) < 1e-5
    assert relative(state[:, :2], memory[:, :2]) < 1e-5
    assert relative(fast, slow) < 3e-4  # 100,000 roundings of a sum that hardly fades


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_float32_state_and_stays_near(dtype):
    q, k, v = inputs(1, 4, 300, 8)
    decay = retention_decay(4)
    want = parallel_retention(q, k, v, decay)
    for form, options in ((recurrent_retention, {}), (chunkwise_retention, {"chunk_size": 32})):
        got, state = form(q.to(dtype), k.to(dtype), v.to(dtype), decay, **options)
        assert (got.dtype, state.dtype) == (dtype, torch.float32)
        assert relative(got.float(), want) < 0.02


def mixer(seed: int = 0, *, position: str = "rope", **options) -> MultiScaleRetention:
    torch.manual_seed(seed)
    return MultiScaleRetention(GPTConfig(n_embd=24, n_head=3, block_size=16, position=position), **options)


VARIANTS = [
    {},
    {"gate": False},
    {"norm": False},
    {"chunk_size": 1},
    *({"decay": name} for name in DECAYS if name != "multi-scale"),
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_prefill_in_pieces_then_steps_equal_the_full_forward(options):
    layer = mixer(**options).double()
    x = torch.randn(2, 150, 24, dtype=torch.float64)
    want = layer(x)
    state = layer.empty_state(2, x.device, x.dtype)
    parts, before = [], state.memory.clone()
    for piece in (x[:, :70], x[:, 70:71], x[:, 71:140], *x[:, 140:].split(1, dim=1)):
        y, state = layer.step(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), want)
    assert state.length == 150
    first = layer.empty_state(2, x.device, x.dtype)
    torch.testing.assert_close(layer(x[:, :9], first), want[:, :9])
    assert torch.equal(first.memory, before)  # a state is never written into


def test_no_token_sees_the_future_and_every_token_sees_the_past():
    for options in VARIANTS:
        layer = mixer(**options).double()
        x = torch.randn(1, 90, 24, dtype=torch.float64, requires_grad=True)
        seen = torch.autograd.grad(layer(x)[0, 70].sum(), x)[0][0].abs().sum(-1)
        assert (seen[71:] == 0).all()
        assert (seen[:71] > 0).all()


def test_the_mixer_is_the_formula():
    layer = mixer(position="none")
    x = torch.randn(1, 20, 24)
    q, k, v, g = layer.c_qkvg(x).view(1, 20, 4, 3, 8).permute(2, 0, 3, 1, 4)
    y = naive_retention(q, k / 8**0.5, v, retention_decay(3))
    y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (g / (1 + (-g).exp()))
    torch.testing.assert_close(layer(x), layer.c_proj(y.transpose(1, 2).reshape(1, 20, 24)), atol=1e-5, rtol=1e-4)


def test_rotary_positions_see_only_distance():
    layer = mixer().double()
    x = torch.randn(1, 6, 24, dtype=torch.float64)
    state = layer.empty_state(1, x.device, x.dtype)
    late = RetentionState(state.memory, 5000)
    torch.testing.assert_close(layer.step(x, late)[0], layer(x), atol=1e-3, rtol=0)  # angles are float32


def test_gated_decay_starts_as_the_multi_scale_one():
    gated = mixer(decay="gated")
    torch.nn.init.zeros_(gated.decay.rate.weight)
    torch.testing.assert_close(gated.decay(torch.randn(2, 5, 24)), retention_decay(3)[:, None].expand(2, 3, 5))
    gated(torch.randn(2, 5, 24)).square().sum().backward()
    assert gated.decay.rate.weight.grad.abs().max() > 0


def test_the_decay_stays_float32_and_out_of_checkpoints():
    layer = mixer()
    exact = layer.decay.log_decay.clone()
    for cast in (layer.bfloat16(), layer.half(), layer.double(), layer.float()):
        assert cast.decay.log_decay.dtype == torch.float32
        assert torch.equal(cast.decay.log_decay, exact)
    assert not any("log_decay" in name for name in layer.state_dict())
    y, state = layer.bfloat16().step(torch.randn(1, 9, 24).bfloat16(), layer.empty_state(1, "cpu", torch.bfloat16))
    assert (y.dtype, state.memory.dtype) == (torch.bfloat16, torch.float32)
    with torch.device("meta"):
        elsewhere = mixer()
    assert torch.equal(elsewhere.to_empty(device="cpu").decay.log_decay, exact)


def test_parameters_are_four_or_five_squares():
    count = [sum(p.numel() for p in mixer(gate=gate).parameters() if p.ndim == 2) for gate in (False, True)]
    assert count == [4 * 24**2, 5 * 24**2]


@pytest.mark.parametrize("position", ["rope", "none"])
def test_a_gpt_of_retention_goes_on_beyond_its_block_and_without_end(position):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=30, block_size=16, n_layer=2, n_head=3, n_embd=24, position=position)
    model = GPT(config, mixer=MultiScaleRetention).double().eval()
    assert model.context_limit is None
    idx = torch.randint(30, (1, 200))
    whole, state = model.step(idx)
    assert state.length == 200
    torch.testing.assert_close(whole[:, :16], model(idx[:, :16]))
    logits, state = model.step(idx[:, :100])
    for t in range(100, 200):
        logits, state = model.step(idx[:, t : t + 1], state)
    torch.testing.assert_close(logits[:, 0], whole[:, -1])
    assert sum(block.memory.numel() for block in state.blocks) == 2 * 24 * 24 // 3


def test_a_model_at_position_100_000_is_finite():
    layer = mixer()
    state = RetentionState(1e3 * torch.randn(1, 3, 8, 8), 100_000)
    y, state = layer.step(torch.randn(1, 3, 24), state)
    assert torch.isfinite(y).all()
    assert state.length == 100_003


@settings(max_examples=10)
@given(B=st.integers(1, 3), T=st.integers(1, 70))
def test_sequences_of_a_batch_do_not_meet(B, T):
    layer = mixer().double()
    x = torch.randn(B, T, 24, dtype=torch.float64)
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone)


def bad_calls():
    q, k, v = inputs(2, 3, 5, 4)
    decay = retention_decay(3)
    nan = q.clone()
    nan[1, 2, 3, 0] = math.nan
    chunk = {"chunk_size": 2}
    yield "chunk 0", lambda: chunkwise_retention(q, k, v, decay, chunk_size=0), "chunk_size must be at least 1, got 0"
    yield (
        "k",
        lambda: parallel_retention(q, k[..., :3], v, decay),
        r"got \(2, 3, 5, 4\), \(2, 3, 5, 3\), \(2, 3, 5, 4\)",
    )
    yield "v", lambda: recurrent_retention(q, k, v[:, :, :4], decay), r"v \(B, H, T, any D\)"
    yield "no token", lambda: parallel_retention(*(x[:, :, :0] for x in (q, k, v)), decay), "T at least 1"
    yield "heads", lambda: parallel_retention(q, k, v, retention_decay(4)), r"shape \(3,\) or \(2, 3, 5\).*got \(4,\)"
    yield "γ", lambda: parallel_retention(q, k, v, decay.exp()), r"at most 0, got 0\.99.*pass ln γ, not γ"
    yield "no memory", lambda: parallel_retention(q, k, v, decay - math.inf), "finite and at most 0, got -inf"
    state = torch.zeros(2, 3, 4, 5)
    yield "state", lambda: chunkwise_retention(q, k, v, decay, state=state, **chunk), r"\(2, 3, 4, 5\).*\(2, 3, 4, 4\)"
    for name, form in (("parallel", parallel_retention), ("recurrent", recurrent_retention)):
        yield f"{name} nan", lambda form=form: form(nan, k, v, decay), "q holds a value that is not finite"
    yield "chunk inf", lambda: chunkwise_retention(q, k, v / 0, decay, **chunk), "v holds a value that is not finite"
    yield "no heads", lambda: retention_decay(0), "n_head must be at least 1, got 0"
    yield "name", lambda: mixer(decay="slow"), "unknown decay 'slow'; known: multi-scale, single-scale, none, gated"
    yield "module chunk", lambda: mixer(chunk_size=0), "chunk_size must be at least 1, got 0"
    layer, x = mixer(), torch.zeros(2, 3, 24)
    yield "module nan", lambda: layer(x * math.nan), "the input of retention holds a value that is not finite"
    yield "cache", lambda: layer.step(x, KVCache(x, x)), "goes on from a RetentionState, got a KVCache"
    other = RetentionState(torch.zeros(2, 4, 6, 6))
    yield "other state", lambda: layer.step(x, other), r"\(2, 4, 6, 6\), these tokens need \(2, 3, 8, 8\)"
    batch = layer.empty_state(1, x.device, x.dtype)
    yield "other batch", lambda: layer(x, batch), r"\(1, 3, 8, 8\), these tokens need \(2, 3, 8, 8\)"


@pytest.mark.parametrize(("call", "message"), [pytest.param(c, m, id=name) for name, c, m in bad_calls()])
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
