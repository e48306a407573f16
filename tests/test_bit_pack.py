"""Packed ternary weights: exact both ways, and layers that give the same bits whoever multiplies.
Run: pytest tests/test_bit_pack.py"""

import copy
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kancourse import bit_kernel_choice
from kancourse.bit_codes import bit_input_codes
from kancourse.bit_kernel import ROWS, bit_linear_rows
from kancourse.bit_kernel_choice import bit_kernel, use_bit_kernel
from kancourse.bit_pack import FEW_TOKENS, PackedBitLinear, pack_ternary, scratch, unpack_ternary
from kancourse.bitnet import BinaryLinear, BitLinear

KERNELS = ("numba", "eager")
BITS = (2, 1.6)


@pytest.fixture(autouse=True)
def _no_choice_left_behind(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    monkeypatch.delenv("KANCOURSE_BIT_KERNEL", raising=False)


def ternary(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(-1, 2, (outputs, inputs), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def layer_and_input(inputs: int, outputs: int, *tokens: int, seed: int = 0, kind: type = BitLinear):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = kind(inputs, outputs)
        torch.nn.init.normal_(layer.norm_weight)
        return layer.eval(), 3 * torch.randn(*tokens, inputs)


# --- packing ---


@pytest.mark.parametrize("bits", BITS)
@given(outputs=st.integers(0, 9), inputs=st.integers(0, 23), seed=st.integers(0, 99))
def test_packing_is_undone_exactly(bits, outputs, inputs, seed):
    codes = ternary(outputs, inputs, seed)
    packed = pack_ternary(codes, bits=bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-inputs // (4 if bits == 2 else 5)) * outputs
    assert torch.equal(unpack_ternary(packed, codes.shape, bits=bits), codes)
    assert torch.equal(pack_ternary(codes.float(), bits=bits), packed)


def test_the_forms_are_what_they_say():
    codes = torch.tensor([[-1, 0, 1, 1, 0]])
    assert pack_ternary(codes).tolist() == [[0 + 1 * 4 + 2 * 16 + 2 * 64], [0b01010101]]
    assert pack_ternary(codes, bits=1.6).tolist() == [[0 + 1 * 3 + 2 * 9 + 2 * 27 + 1 * 81]]


@pytest.mark.parametrize("wrong", [2, -2, 0.5, float("nan")])
def test_codes_that_are_not_ternary_are_refused(wrong):
    with pytest.raises(ValueError, match="codes must be -1, 0 or 1"):
        pack_ternary(torch.tensor([[0.0, wrong, 1.0]]))


@pytest.mark.parametrize("bits", BITS)
def test_buffers_of_another_shape_cut_short_or_damaged_are_refused(bits):
    packed = pack_ternary(ternary(6, 11), bits=bits)
    for wrong in (packed[:-1], packed[:, :-1], packed.T.contiguous(), packed.flatten(), packed.to(torch.int16)):
        with pytest.raises(ValueError, match=r"6 × 11 weights at .* are uint8 \(3, 6\).*cut short, or packed"):
            unpack_ternary(wrong, (6, 11), bits=bits)
    packed[1, 2] = 255
    with pytest.raises(ValueError, match="1 bytes are not weights"):
        unpack_ternary(packed, (6, 11), bits=bits)


def test_other_arguments_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match=r"packed at 2 or 1\.6 bits, not at 3"):
        pack_ternary(ternary(2, 2), bits=3)
    with pytest.raises(ValueError, match="must be a matrix"):
        pack_ternary(torch.zeros(4))


# --- the layer ---


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", [BitLinear, BinaryLinear])
@given(
    inputs=st.one_of(st.integers(1, 9), st.integers(4 * ROWS - 5, 4 * ROWS + 5), st.integers(1, 300)),
    outputs=st.integers(1, 40),
    tokens=st.sampled_from([(), (1,), (0,), (3,), (2, 3), (FEW_TOKENS,), (FEW_TOKENS + 1,)]),
    seed=st.integers(0, 99),
)
def test_packed_equals_the_layer_to_the_last_bit(kernel, kind, inputs, outputs, tokens, seed):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(inputs, outputs, *tokens, seed=seed, kind=kind)
    assert torch.equal(PackedBitLinear.from_bit_linear(layer)(x), layer(x))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("inputs", "outputs"), [(768, 2048), (2048, 768), (16385, 3)])
def test_so_it_does_at_real_sizes_and_with_the_largest_sums(kernel, inputs, outputs):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(inputs, outputs, 3)
    assert torch.equal(PackedBitLinear.from_bit_linear(layer)(x), layer(x))
    with torch.no_grad():  # all codes 127, all weights alike: no product takes away from the sum
        layer.norm_weight.fill_(1)
        layer.weight.fill_(0.3)
    for sign in (1, -1):
        y = PackedBitLinear.from_bit_linear(layer)(torch.full((1, inputs), 2.0 * sign))
        assert torch.equal(y, layer(torch.full((1, inputs), 2.0 * sign)))
        torch.testing.assert_close(y, torch.full_like(y, sign * 0.3 * inputs), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zeros_extremes_and_halves(kernel):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(8, 5, 5)
    x[0], x[1], x[2] = 0, 1e-20, 3e38
    x[3] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 3.0])  # codes half-way between two integers
    assert torch.equal(PackedBitLinear.from_bit_linear(layer)(x), layer(x))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_token_that_is_not_finite_poisons_itself_only(kernel, poison):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(9, 4, 3)
    x[1, 8] = poison
    y = PackedBitLinear.from_bit_linear(layer)(x)
    assert y[1].isnan().all()
    assert torch.equal(y[::2], layer(x)[::2])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_dtype_of_the_input_is_that_of_the_output(kernel, dtype):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(13, 6, 2)
    packed = PackedBitLinear.from_bit_linear(layer)
    with torch.autocast("cpu"):
        assert torch.equal(packed(x.to(dtype)), layer(x.to(dtype)))
    assert packed(x.to(dtype)).dtype == dtype


def test_inputs_that_lie_in_memory_in_another_order():
    layer, x = layer_and_input(13, 6, 4)
    packed = PackedBitLinear.from_bit_linear(layer)
    assert torch.equal(packed(x.T.contiguous().T), layer(x))
    assert torch.equal(packed(x[::2]), layer(x)[::2])


def test_the_loops_as_plain_python_give_the_same_bits():
    layer, x = layer_and_input(4 * ROWS + 3, 5, 2)
    packed, y = PackedBitLinear.from_bit_linear(layer), torch.empty(2, 5)
    bit_linear_rows(x.numpy(), packed.weights(), scratch(4 * (ROWS + 1)), y.numpy())
    assert torch.equal(y, layer(x))


def test_integers_are_integers():
    layer, x = layer_and_input(50, 7, 3)
    packed = PackedBitLinear.from_bit_linear(layer)
    codes, scale = bit_input_codes(x, layer.norm_weight, layer.eps)
    sums = codes.long() @ unpack_ternary(packed.packed, (7, 50)).long().T
    assert torch.equal(packed(x), sums.float() * (scale * packed.scale))


def test_saving_and_loading_change_nothing(tmp_path):
    layer, x = layer_and_input(37, 11, 3)
    packed = PackedBitLinear.from_bit_linear(layer)
    save_file(packed.state_dict(), tmp_path / "layer.safetensors")
    state = load_file(tmp_path / "layer.safetensors")
    for assign in (False, True):
        other = PackedBitLinear(37, 11)
        other(x)  # bound to its first buffers, which must not be used any more
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(x), layer(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        PackedBitLinear(38, 12).load_state_dict(state)


def test_by_itself_it_is_zero_and_it_can_be_scaled_cast_and_copied():
    layer, x = layer_and_input(10, 6, 2)
    assert not PackedBitLinear(10, 6)(x).any()
    packed = PackedBitLinear.from_bit_linear(layer)
    packed(x)
    twin = copy.deepcopy(packed)
    twin.scale_output_(2.0)
    assert torch.equal(twin(x), 2 * layer(x))
    assert torch.equal(packed(x), layer(x))
    assert copy.deepcopy(packed).bfloat16().scale == packed.scale  # not rounded
    assert sum(b.numel() * b.element_size() for b in PackedBitLinear(512, 512).buffers()) < 512 * 512 * 4 / 15


def test_it_can_be_made_without_memory_and_filled_later():
    layer, x = layer_and_input(10, 6, 2)
    with torch.device("meta"):
        packed = PackedBitLinear(10, 6)
    packed.to_empty(device="cpu").load_state_dict(PackedBitLinear.from_bit_linear(layer).state_dict())
    assert torch.equal(packed(x), layer(x))


def test_what_cannot_be_packed_or_used_is_refused():
    layer, x = layer_and_input(4, 3, 2)
    with pytest.raises(TypeError, match="only a BitLinear can be packed, got a Linear"):
        PackedBitLinear.from_bit_linear(torch.nn.Linear(4, 3))
    with pytest.raises(ValueError, match="has no bias"):
        PackedBitLinear(4, 3, bias=True)
    with pytest.raises(ValueError, match="sizes of at least 1"):
        PackedBitLinear(0, 3)
    packed = PackedBitLinear.from_bit_linear(layer)
    with pytest.raises(ValueError, match=r"takes 4 features on the last axis, got \(2, 3\)"):
        packed(x[:, :3])
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch\.int64"):
        packed(x.long())
    with torch.no_grad():
        layer.weight[1, 1] = float("inf")
    with pytest.raises(ValueError, match="weights hold NaN or infinity"):
        PackedBitLinear.from_bit_linear(layer)


@pytest.mark.parametrize("kernel", ["numba", "eager"])
@pytest.mark.parametrize(("inputs", "outputs", "count"), [(1, 1, 1), (5, 3, 2), (33, 17, 7), (64, 48, 50)])
def test_the_gradient_of_the_input_is_the_unpacked_layers(kernel, inputs, outputs, count):
    use_bit_kernel(kernel)
    layer, x = layer_and_input(inputs, outputs, count)
    packed, gradients = PackedBitLinear.from_bit_linear(layer).train(), []
    for module in (layer, packed):
        seen = x.clone().requires_grad_()
        y = module(seen)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
        gradients.append(seen.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
    assert not list(packed.parameters())
    with torch.no_grad():
        assert not packed(x.clone().requires_grad_()).requires_grad


# --- who multiplies ---


def test_the_choice_is_said_and_can_be_set(monkeypatch):
    assert use_bit_kernel("auto").name == "numba"
    assert bit_kernel() == use_bit_kernel("auto")
    assert use_bit_kernel("eager").reason == "asked for"
    assert bit_kernel().name == "eager"
    with pytest.raises(ValueError, match="unknown bit kernel 'fast'; known: numba, eager, auto"):
        use_bit_kernel("fast")
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    monkeypatch.setenv("KANCOURSE_BIT_KERNEL", "eager")
    assert bit_kernel().name == "eager"


def test_without_numba_the_same_bits_and_a_word_about_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    layer, x = layer_and_input(30, 7, 2)
    assert torch.equal(PackedBitLinear.from_bit_linear(layer)(x), layer(x))
    assert bit_kernel().name == "eager"
    assert "pip install 'kancourse[fast]'" in bit_kernel().reason
    with pytest.raises(RuntimeError, match="Numba is not installed"):
        use_bit_kernel("numba")


def test_numba_is_not_imported_before_it_is_needed():
    code = (
        "import sys, kancourse.bitnet, kancourse.bit_pack, torch\n"
        "assert 'numba' not in sys.modules\n"
        "kancourse.bit_pack.PackedBitLinear(4, 4)(torch.ones(1, 4))\n"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
