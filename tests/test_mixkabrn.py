"""The whole model: trained, packed, filed and decoding, always the same numbers. Run: pytest tests/test_mixkabrn.py"""

import copy
import subprocess
import sys

import pytest
import torch
from test_packed import step_by_step, tokens

from kancourse import bit_kernel_choice
from kancourse.__main__ import main
from kancourse.bit_kan import BitKAN
from kancourse.bit_kernel_choice import bit_kernel, use_bit_kernel
from kancourse.bitnet import BitLinear, zero_fraction
from kancourse.lab import bench_mixkabrn as bench_module
from kancourse.lab.bench import BENCHES
from kancourse.lab.bench_mixkabrn import OLDER, bench_mixkabrn, memory_growth, models
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.packed_file import load_packed, save_packed
from kancourse.lab.probes import PROBES
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.moe_tools import without_experts
from kancourse.packed import PackedGPT, pack_linears, packed_bytes
from kancourse.packed_kan import PackedBitKAN
from kancourse.retention import RetentionState
from kancourse.zoo import PRESETS, build

EXPERTS = {"expert": "bit_kan", "expert_dim": 5, "n_expert": 4, "top_k": 2, "n_shared": 1}
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 24, "vocab_size": 31, "block_size": 80, "ffn_options": EXPERTS}
VARIANTS = {
    "as it is": {},
    "another grid": {"ffn_options": EXPERTS | {"expert_options": {"grid_size": 5, "order": 3, "reach": 4.0}}},
    "softmax gate, one chosen": {"ffn_options": EXPERTS | {"gate": "softmax", "top_k": 1, "n_shared": 2}},
    "mixtral gate, none shared": {"ffn_options": EXPERTS | {"gate": "mixtral", "n_shared": 0}},
    "attention": {"mixer": "attention"},
    "no experts": {"ffn": "bit_kan", "ffn_dim": 7, "ffn_options": {"grid_size": 4}},
    "matrices of KANs": {"linear": "bit_kan"},
    "swiglu experts": {"ffn_options": EXPERTS | {"expert": "swiglu"}},
}


@pytest.fixture(autouse=True)
def _no_choice_left_behind(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    monkeypatch.delenv("KANCOURSE_BIT_KERNEL", raising=False)


def whole(name: str = "as it is", seed: int = 0, **overrides):
    """A model with weights as training leaves them: a loud stream, a router with opinions, scales that are not one."""
    model = build("mixkabrn-tiny", seed=seed, **SMALL | VARIANTS[name] | overrides).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            if "router" in parameter_name:
                parameter.mul_(20)
        for buffer_name, buffer in model.named_buffers():
            if buffer_name.endswith("router.bias"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=generator)
        model.wte.weight.mul_(30)
    return model


# ---------------------------------------------------------------- presets and training


@pytest.mark.parametrize(("name", "least", "most"), [("tiny", 0.2e6, 0.4e6), ("small", 2e6, 6e6), ("base", 40e6, 80e6)])
def test_presets_have_the_size_that_they_promise_and_the_parts(name, least, most):
    with torch.device("meta"):
        model = build(f"mixkabrn-{name}")
    assert least < sum(p.numel() for p in model.parameters()) < most
    config = PRESETS[f"mixkabrn-{name}"]
    assert (config.mixer, config.linear, config.ffn, config.tie_head) == ("retention", "bit", "moe", True)
    block = model.blocks[0]
    assert all(isinstance(layer, BitLinear) for layer in (block.mixer.c_qkvg, block.mixer.c_proj))
    assert len(block.ffn.shared) == 1
    assert all(isinstance(expert.c_fc, BitKAN) for expert in (*block.ffn.experts, *block.ffn.shared))
    assert block.ffn.router.weight.dtype == torch.float32
    assert model.lm_head.weight is model.wte.weight


def test_every_parameter_learns():
    model = whole().train()
    idx = tokens(8, 33)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = model.loss(idx[:, :-1], idx[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    silent = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert not silent
    assert 0.1 < zero_fraction(model) < 0.6


def test_zeros_are_counted_in_the_experts_too():
    model = whole()
    with torch.no_grad():
        for block in model.blocks:
            for layer in (layer for layer in block.ffn.modules() if isinstance(layer, BitKAN)):
                layer.weight.zero_()
    told = PROBES["ternary_zeros"](model, None, 0)
    in_experts = [share for name, share in told["by_layer"].items() if ".ffn." in name]
    assert len(in_experts) == 2 * 5 * len(model.blocks), "two layers of four routed experts and the shared one"
    assert set(in_experts) == {1.0}
    assert told["zeros"] > max(share for name, share in told["by_layer"].items() if ".mixer." in name)


# ---------------------------------------------------------------- packed


@pytest.mark.parametrize("kernel", ["numba", "eager"])
@pytest.mark.parametrize("name", VARIANTS)
def test_packed_every_logit_is_that_of_the_training_forward_to_the_last_bit(name, kernel):
    use_bit_kernel(kernel)
    model = whole(name)
    before = copy.deepcopy(model.state_dict())
    twin = pack_linears(model)
    assert not any(isinstance(module, BitLinear | BitKAN) for module in twin.modules())
    with torch.no_grad():
        assert torch.equal(twin(tokens(3, 40)), model(tokens(3, 40)))
    assert torch.equal(step_by_step(twin, tokens(2, 12)), step_by_step(model, tokens(2, 12)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert packed_bytes(twin) == packed_bytes(model)


@pytest.mark.parametrize("name", VARIANTS)
def test_prefill_then_steps_is_the_forward_up_to_the_order_of_float_sums(name):
    """Sums over the past are taken in another order; a code that falls to the other side of a half shows as a step."""
    model, idx = whole(name), tokens(2, 50)
    with torch.no_grad():
        full = model(idx)
    difference = (step_by_step(model, idx) - full).abs().amax(-1) / full.std()
    assert difference.median() < 1e-4
    assert difference.mean() < 0.02


@pytest.mark.parametrize("name", VARIANTS)
def test_one_step_by_loops_differs_by_rounding_only(name):
    model, errors = whole(name), []
    packed = PackedGPT(model)
    for seed in range(12):
        idx = tokens(1, 12, seed=seed)
        with torch.no_grad():
            state = model.step(idx[:, :-1])[1]
            expected = model.step(idx[:, -1:], copy.deepcopy(state))[0]
            found = packed.step(idx[:, -1:], state)[0]
        errors.append(float((found - expected).abs().max() / expected.std()))
    assert sorted(errors)[len(errors) // 2] < 1e-5


def test_experts_that_are_not_chosen_are_not_touched():
    packed = PackedGPT(whole())
    idx, touched = tokens(1, 1), []
    state = packed.step(tokens(1, 6))[1]
    for block in packed.model.blocks:
        for number, expert in enumerate(block.ffn.experts):
            for layer in (expert.c_fc, expert.c_proj):
                weights = layer.weights
                layer.weights = lambda number=number, weights=weights: touched.append(number) or weights()
    packed.step(idx, state)
    assert len(touched) == 2 * 2 * 2  # blocks, experts chosen, layers of each
    assert packed.describe() == "by loops: 2 × MultiScaleRetention, 2 × MoE"


def test_a_mixture_that_is_looked_into_runs_by_modules():
    model, idx = whole(), tokens(1, 9)
    packed = PackedGPT(model)
    for m in (model, packed.model):
        m.blocks[0].ffn.router.bias[3] = 50.0  # everybody's first choice
    with without_experts(model.blocks[0].ffn, [3]), without_experts(packed.model.blocks[0].ffn, [3]):
        torch.testing.assert_close(step_by_step(packed, idx), step_by_step(model, idx), atol=0.1, rtol=0)
        without = step_by_step(packed, idx)
    assert not torch.allclose(step_by_step(packed, idx), without, atol=0.1)


def test_poison_is_named_and_the_state_does_not_grow():
    packed = PackedGPT(whole())
    assert packed.context_limit is None
    state, sizes = packed.step(tokens(1, 3))[1], set()
    for t in range(200):  # far beyond block_size
        _, state = packed.step(tokens(1, 1, seed=t), state)
        sizes.add(sum(block.memory.nbytes for block in state.blocks))
    assert len(sizes) == 1
    assert all(isinstance(block, RetentionState) for block in state.blocks)
    with torch.no_grad():
        packed.model.blocks[0].ln_2.weight[0] = torch.nan
    with pytest.raises(FloatingPointError, match="the router of an MoE met nan or infinity"):
        packed.step(tokens(1, 1), state)


# ---------------------------------------------------------------- the file and the command line


@pytest.mark.parametrize("bits", [2, 1.6])
@pytest.mark.parametrize("name", ["as it is", "another grid", "no experts", "matrices of KANs", "swiglu experts"])
def test_a_file_gives_back_the_model_to_the_last_bit(name, bits, tmp_path):
    model = whole(name)
    path = save_packed(tmp_path / "model.safetensors", model, bits=bits)
    loaded = load_packed(path).model
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 30)), model(tokens(2, 30)))
    again = save_packed(tmp_path / "again.safetensors", loaded, bits=bits)
    assert again.read_bytes() == path.read_bytes()


def test_weights_stay_in_the_file_until_they_are_used(tmp_path):
    path = save_packed(tmp_path / "model.safetensors", whole())
    loaded = load_packed(path).model
    mapped = [m.packed for m in loaded.modules() if isinstance(m, PackedBitKAN)]
    assert len(mapped) == 2 * 5 * 2
    if sys.platform == "linux":
        with open("/proc/self/maps") as file:
            spans = [line.split()[0].split("-") for line in file if str(path) in line]
        assert spans
        inside = [any(int(a, 16) <= t.data_ptr() < int(b, 16) for a, b in spans) for t in mapped]
        assert all(inside)


def test_the_command_line_packs_and_writes_token_by_token(tmp_path, capsys):
    tokenizer = ByteTokenizer()
    model = whole(vocab_size=tokenizer.vocab_size)
    checkpoint = save_checkpoint(tmp_path / "latent.safetensors", model, tokenizer=tokenizer)
    packed = tmp_path / "packed.safetensors"
    main(["pack", str(checkpoint), str(packed)])
    assert packed.stat().st_size < checkpoint.stat().st_size / 2
    capsys.readouterr()
    main(["sample", "--model", str(packed), "--prompt", "hello", "--max_new_tokens", "8"])
    assert capsys.readouterr().out.startswith("hello")
    assert torch.equal(
        load_packed(packed).model(tokens(1, 20)), load_checkpoint(checkpoint).model.eval()(tokens(1, 20))
    )
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(SystemExit):
        main(["sample", "--model", str(packed), "--prompt", "hello"])
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1


# ---------------------------------------------------------------- the benchmark


def test_the_benchmark_says_what_it_measured(monkeypatch):
    monkeypatch.setattr(bench_module, "older_speed_ratio", lambda name, *rest: 4.5)
    monkeypatch.setattr(bench_module, "memory_growth", lambda path, far: 300_000)
    threads = torch.get_num_threads()
    text = "\n".join(bench_mixkabrn("mixkabrn-tiny", {"n_layer": 1, "vocab_size": 64}, far=300))
    assert torch.get_num_threads() == threads
    assert f"products by {bit_kernel().name}" in text
    assert "by loops: 1 × MultiScaleRetention, 1 × MoE" in text
    assert "and the state 1.00x the bytes" in text
    if sys.platform == "linux":
        assert "grows by 0.3 MB; the keys and values of attention would by 0.1 MB" in text
    assert "AVX2 only: packed makes 4.5x" in text
    assert BENCHES["mixkabrn"] is bench_mixkabrn


def test_twins_have_the_same_parameters_up_to_scales_and_norms():
    ternary, plain = models("mixkabrn-tiny")
    counts = [sum(p.numel() for p in m.parameters() if p.ndim > 1) for m in (ternary, plain)]
    assert counts[0] == counts[1]
    assert not any(isinstance(m, BitLinear | BitKAN) for m in plain.modules())


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_memory_is_flat_over_context(tmp_path):
    path = save_packed(tmp_path / "model.safetensors", whole())
    assert memory_growth(path, 400) < 2**20


@pytest.mark.skipif(bit_kernel().name != "numba", reason="without Numba there is no machine code to look at")
def test_older_processors_get_older_instructions():
    """What Numba makes for them has none of this one's wide registers."""
    code = (
        "from kancourse.bit_kernel import compiled, ternary_product; import numba, numpy as np;"
        "f = numba.njit(ternary_product);"
        "f(np.zeros((2, 64), np.uint8), np.zeros(8, np.int16), np.zeros(64, np.int16), np.zeros(64, np.int32));"
        "text = ''.join(f.inspect_asm().values()); print('zmm' in text, 'ymm' in text)"
    )
    told = {}
    for name, environment in OLDER.items():
        settings = bench_module.os.environ | bench_module.ALONE | environment
        done = subprocess.run([sys.executable, "-c", code], env=settings, stdout=subprocess.PIPE, text=True, check=True)
        told[name] = done.stdout.split()
    assert told["AVX2 only"] == ["False", "True"]
    assert told["SSE only"] == ["False", "False"]
