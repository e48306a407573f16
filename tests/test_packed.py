"""Packed models: bitwise by modules, close by loops, whole through their file. Run: pytest tests/test_packed.py"""

import copy
import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from kancourse import bit_kernel_choice
from kancourse.bit_kernel_choice import use_bit_kernel
from kancourse.bit_pack import PackedBitLinear
from kancourse.bitnet import BitLinear
from kancourse.lab import packed_file
from kancourse.lab.checkpoint import load_checkpoint, save_checkpoint
from kancourse.lab.packed_file import load_packed, save_packed
from kancourse.lab.sample import generate, generate_ids
from kancourse.lab.tokenizers import ByteTokenizer
from kancourse.packed import PackedGPT, pack_linears, packed_bytes
from kancourse.zoo import build

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 24, "ffn_dim": 37, "vocab_size": 31, "block_size": 80}
TERNARY = {"linear": "bit", "block_norm": "none", "bias": False}
MODELS = {
    "retention": ("retnet-nano", {}),
    "gated retention": ("retnet-nano", {"mixer_options": {"decay": "gated"}}),
    "bare retention": ("retnet-nano", {"mixer_options": {"gate": False, "norm": False}, "position": "none"}),
    "attention": ("llama-nano", {}),
    "attention and mlp": ("gpt-nano", {"position": "learned"}),
    "experts": ("moe-nano", {"ffn_options": {"n_expert": 4, "top_k": 2, "n_shared": 1}}),
    "norms outside as well": ("retnet-nano", {"block_norm": "rms"}),
    "odd heads": ("retnet-nano", {"n_head": 8, "position": "none"}),
    "binary, and a ternary head": ("llama-nano", {"linear": "binary", "head": "bit", "tie_head": False}),
    "in part": ("llama-nano", {"ffn": "dense_mlp"}),
}


@pytest.fixture(autouse=True)
def _no_choice_left_behind(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    monkeypatch.delenv("KANCOURSE_BIT_KERNEL", raising=False)


def ternary(name: str = "retention", seed: int = 0, **overrides):
    """A model with weights as training leaves them: larger than at the start, gains that are not one."""
    preset, settings = MODELS[name]
    model = build(preset, seed=seed, **SMALL | TERNARY | settings | overrides).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("norm_weight"):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        model.wte.weight.mul_(30)
    return model


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(31, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def step_by_step(model, idx: torch.Tensor, prompt: int = 5) -> torch.Tensor:
    logits, state = model.step(idx[:, :prompt])
    parts = [logits]
    for t in range(prompt, idx.size(1)):
        logits, state = model.step(idx[:, t : t + 1], state)
        parts.append(logits)
    assert state.length == idx.size(1)
    return torch.cat(parts, dim=1)


# --- by modules ---


@pytest.mark.parametrize("kernel", ["numba", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_by_modules_every_logit_is_the_same_to_the_last_bit(name, kernel):
    use_bit_kernel(kernel)
    model = ternary(name)
    before = copy.deepcopy(model.state_dict())
    twin = pack_linears(model)
    assert not any(isinstance(module, BitLinear) for module in twin.modules())
    assert any(isinstance(module, PackedBitLinear) for module in twin.modules())
    with torch.no_grad():
        assert torch.equal(twin(tokens(3, 40)), model(tokens(3, 40)))
    assert torch.equal(step_by_step(twin, tokens(2, 40)), step_by_step(model, tokens(2, 40)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_a_layer_that_is_used_twice_is_packed_once_and_a_layer_alone_is_packed_too():
    layer = BitLinear(6, 6)
    twin = pack_linears(torch.nn.ModuleList([layer, torch.nn.Sequential(layer)]))
    assert twin[0] is twin[1][0]
    assert isinstance(pack_linears(layer), PackedBitLinear)
    with pytest.raises(ValueError, match="GPT has no BitLinear or BitKAN layers, so there is nothing to pack"):
        pack_linears(build("gpt-nano", **SMALL))


# --- by loops ---


@pytest.mark.parametrize("name", MODELS)
def test_by_loops_the_same_up_to_the_order_of_float_sums(name):
    """Another order moves a logit by 1e-6 or so; if it pushes a code over a half, by what one step of the code does."""
    model = ternary(name)
    packed, idx = PackedGPT(model), tokens(1, 70)
    expected, found = step_by_step(model, idx), step_by_step(packed, idx)
    assert "by loops" in packed.describe()
    difference = (found - expected).abs().amax(-1)[0] / expected.std()  # of each token
    assert difference.max() < 0.25
    assert difference.mean() < 0.02
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.95


@pytest.mark.parametrize("name", MODELS)
def test_one_step_from_the_same_state_differs_by_rounding_only(name):
    model, errors = ternary(name), []
    packed = PackedGPT(model)
    for seed in range(20):
        idx = tokens(1, 12, seed=seed)
        with torch.no_grad():
            expected = model.step(idx[:, -1:], model.step(idx[:, :-1])[1])[0]
            found = packed.step(idx[:, -1:], model.step(idx[:, :-1])[1])[0]
        errors.append(float((found - expected).abs().max() / expected.std()))
    assert sorted(errors)[len(errors) // 2] < 1e-5


def test_loops_are_as_far_from_modules_as_steps_are_from_chunks():
    """What the order of float sums does to one and the same model anyway is the yardstick."""
    by_loops, by_chunks, idx = 0.0, 0.0, tokens(1, 150)
    for seed in range(5):
        model = ternary(n_embd=192, n_head=6, n_layer=6, ffn_dim=448, block_size=150, seed=seed)
        packed = PackedGPT(model)
        steps, chunks = step_by_step(packed.model, idx, prompt=1), packed(idx)
        by_loops += float((step_by_step(packed, idx, prompt=1) - steps).abs().mean())
        by_chunks += float((chunks - steps).abs().mean())
    assert by_chunks > 1e-3  # codes do fall to the other side of a half
    assert by_loops < 5 * by_chunks


def test_loops_and_modules_can_go_on_from_each_others_states():
    model = ternary("retention")
    packed, idx = PackedGPT(model), tokens(1, 20)
    with torch.no_grad():
        _, state = packed.step(idx[:, :5])
        _, state = packed.step(idx[:, 5:6], state)
        kept = [block.memory.clone() for block in state.blocks]
        one, _ = packed.step(idx[:, 6:7], state)
        again, _ = packed.step(idx[:, 6:7], state)
        other, _ = model.step(idx[:, 6:7], state)
    assert torch.equal(one, again)
    assert all(torch.equal(a, block.memory) for a, block in zip(kept, state.blocks, strict=True))  # never written into
    torch.testing.assert_close(one, other, atol=0.05, rtol=0)


def test_what_runs_how_is_said(monkeypatch):
    assert PackedGPT(ternary("experts")).describe() == "by loops: 2 × CausalSelfAttention, 2 × MoE"
    assert PackedGPT(ternary("in part")).describe() == "by loops: 2 × CausalSelfAttention; by modules: 2 × MLP"
    packed = PackedGPT(ternary())
    assert PackedGPT(copy.deepcopy(packed.model)).half().describe().startswith("by modules: loops are for float32")
    use_bit_kernel("eager")
    assert packed.describe() == "by modules: the bit kernel is eager (asked for)"
    assert torch.equal(step_by_step(packed, tokens(1, 9)), step_by_step(ternary(), tokens(1, 9)))


def test_a_packed_model_samples_as_any_other():
    model, tokenizer = ternary("attention", vocab_size=ByteTokenizer().vocab_size), ByteTokenizer()
    packed = PackedGPT(model)
    for prompt in (
        "a",
        "a much longer prompt, which fills the window of eighty tokens and makes it start anew",
    ):
        settings = {"tokenizer": tokenizer, "max_new_tokens": 60, "temperature": 0.5}
        assert generate(packed, prompt, **settings) == generate(model, prompt, **settings)
    batch = [list(generate_ids(m, tokens(3, 4), 6)) for m in (packed, model)]
    assert torch.equal(torch.stack(batch[0]), torch.stack(batch[1]))


def test_a_copy_has_weights_of_its_own():
    packed = PackedGPT(ternary())
    before, twin = step_by_step(packed, tokens(1, 9)), copy.deepcopy(packed)
    for layer in twin.modules():
        if isinstance(layer, PackedBitLinear):
            layer.scale_output_(0.0)
    assert torch.equal(step_by_step(packed, tokens(1, 9)), before)
    assert not torch.equal(step_by_step(twin, tokens(1, 9)), before)


def test_states_of_another_model_full_contexts_and_poison_are_refused():
    packed, idx = PackedGPT(ternary("retention")), tokens(1, 1)
    other = build("retnet-nano", **SMALL | {"n_embd": 48}).empty_state()
    with pytest.raises(ValueError, match="is it another model's"):
        packed.step(idx, other)
    with pytest.raises(ValueError, match="goes on from a RetentionState, got a KVCache"):
        packed.step(idx, ternary("attention").empty_state())
    with torch.no_grad():
        packed.wte.weight[int(idx)] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        packed.step(idx, packed.empty_state())
    packed = PackedGPT(ternary("attention", block_size=6))
    with pytest.raises(ValueError, match="6 tokens seen and 1 new do not fit the context of 6"):
        step_by_step(packed, tokens(1, 7))
    with pytest.raises(RuntimeError, match="packed weights cannot be trained"):
        packed.train()


def test_bytes_are_counted_before_and_after_alike():
    model = ternary("binary, and a ternary head")
    assert packed_bytes(model) == packed_bytes(pack_linears(model))
    sizes = packed_bytes(build("retnet-mini", linear="bit", block_norm="none", n_embd=192))
    body = sum(p.numel() for p in build("retnet-mini").blocks.parameters())
    assert 4 * body / sizes["body"] > 14
    assert sizes["head"] == 0  # tied
    assert sizes["embedding"] == 256 * 192 * 4
    assert packed_bytes(model, bits=1.6)["body"] < packed_bytes(model)["body"]


# --- the file ---


@pytest.mark.parametrize("bits", [2, 1.6])
@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_back_the_model_to_the_last_bit(name, bits, tmp_path):
    model = ternary(name)
    path = save_packed(tmp_path / "deep" / "model.safetensors", model, bits=bits)
    loaded, tokenizer, _ = load_packed(path)
    assert tokenizer is None
    assert loaded.config.linear in ("packed", "bit")
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 30)), model(tokens(2, 30)))
    assert torch.equal(step_by_step(loaded, tokens(1, 30)), step_by_step(PackedGPT(model), tokens(1, 30)))
    again = save_packed(tmp_path / "again.safetensors", loaded, bits=bits)
    assert again.read_bytes() == path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]  # and nothing half-written


def test_the_file_is_as_small_as_it_should_be_and_talks(tmp_path):
    model = ternary("retention", vocab_size=ByteTokenizer().vocab_size)
    path = save_packed(tmp_path / "model.safetensors", model, tokenizer=ByteTokenizer())
    assert 0 < path.stat().st_size - sum(packed_bytes(model).values()) < 6000  # the header
    loaded, tokenizer, _ = load_packed(path)
    assert tokenizer.to_dict() == ByteTokenizer().to_dict()
    assert generate(loaded, "hello", tokenizer=tokenizer, max_new_tokens=5) is not None
    assert loaded.model.lm_head.weight is loaded.wte.weight


def test_training_packing_and_the_ordinary_checkpoint_agree(tmp_path):
    model = ternary()
    again = load_checkpoint(save_checkpoint(tmp_path / "latent.safetensors", model)).model
    packed = load_checkpoint(save_checkpoint(tmp_path / "packed.safetensors", pack_linears(again))).model
    with torch.no_grad():
        assert torch.equal(packed(tokens(2, 30)), model(tokens(2, 30)))


def test_foreign_cut_and_misfitting_files_are_refused_in_one_sentence(tmp_path):
    path = save_packed(tmp_path / "model.safetensors", ternary())
    whole = path.read_bytes()

    def refused(what: str) -> None:
        with pytest.raises(ValueError, match=what) as error:
            load_packed(path)
        assert "\n" not in str(error.value)

    for length in (0, 7, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("is truncated or not a safetensors file")
    save_checkpoint(path, ternary())
    refused("is not a packed kancourse model, but ")
    path.write_bytes(whole)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["kancourse_packed"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)

    def write(**changes) -> None:
        kept = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
        save_file(kept, path, metadata={"kancourse_packed": json.dumps(header)})

    name = "blocks.1.ffn.c_fc.packed"
    write(**{name: tensors[name][:-1].clone()})
    refused(r"blocks\.1\.ffn\.c_fc\.packed is uint8 \(5, 37\), expected uint8 \(6, 37\)")
    write(**{name: None})
    refused("c_fc.packed is missing")
    write(**{"wte.weight": tensors["wte.weight"].half()})
    refused(r"wte\.weight is float16 .* expected float32")
    write(stranger=torch.zeros(3))
    refused(r"stranger is float32 \(3,\), expected missing")
    header["bits"] = 1.6
    write()
    refused("cut short, or packed from another shape")
    header["format"], header["bits"] = 99, 2
    write()
    refused("packed format 99; this version reads 1")
    with pytest.raises(FileNotFoundError, match="no packed model at"):
        load_packed(tmp_path / "nowhere.safetensors")


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = save_packed(tmp_path / "model.safetensors", ternary())
    before = path.read_bytes()
    model = ternary()
    model.blocks[0].ffn.c_fc = torch.nn.Linear(24, 37)  # which its config does not say
    with pytest.raises(ValueError, match="the model is not what its config describes"):
        save_packed(path, model)
    with pytest.raises(ValueError, match="nothing to pack"):
        save_packed(path, build("gpt-nano", **SMALL))
    assert path.read_bytes() == before


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = save_packed(tmp_path / "model.safetensors", ternary())
    before = path.read_bytes()

    def full(tensors, target, metadata):
        target.write_bytes(b"half of it")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(packed_file, "save_file", full)
    with pytest.raises(OSError, match=r"could not be written: .*No space left"):
        save_packed(path, ternary(seed=1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
