"""A packed BitKAN gives the bits of the layer it was made from. Run: pytest tests/test_packed_kan.py"""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_bit_kan import make, randn

from kancourse import bit_kernel_choice
from kancourse.bit_kan import BitKAN
from kancourse.bit_kernel import bit_kan_rows
from kancourse.bit_kernel_choice import use_bit_kernel
from kancourse.bit_pack import FEW_TOKENS, PackedBitLinear, scratch
from kancourse.packed_kan import PackedBitKAN


@pytest.fixture(autouse=True)
def _no_choice_left_behind(monkeypatch):
    monkeypatch.setattr(bit_kernel_choice, "_chosen", None)
    monkeypatch.delenv("KANCOURSE_BIT_KERNEL", raising=False)


@pytest.mark.parametrize("kernel", ["numba", "eager"])
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    n=st.sampled_from([0, 1, 5, FEW_TOKENS + 1]),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 4), st.sampled_from([0.7, 3.0, 4.5])),
    seed=st.integers(0, 99),
)
def test_every_output_is_the_same_to_the_last_bit(kernel, inputs, outputs, n, grid, seed):
    use_bit_kernel(kernel)
    layer = make(inputs, outputs, seed, grid_size=grid[0], order=grid[1], reach=grid[2])
    x = 2 * randn(n, inputs, seed=seed + 5)
    packed = PackedBitKAN.from_bit_kan(layer)
    assert packed.packed.shape == (-(-inputs * (1 + grid[0] + grid[1]) // 4), outputs)
    assert torch.equal(packed(x), layer(x))


def test_the_loops_without_a_compiler_give_the_same_bits():
    layer, x = make(9, 5), 2 * randn(3, 9)
    packed = PackedBitKAN.from_bit_kan(layer)
    y, work = np.empty((3, 5), np.float32), scratch(4 * len(packed.packed))
    bit_kan_rows(x.numpy(), packed.weights(), work, y)
    assert torch.equal(torch.from_numpy(y), layer(x))


@pytest.mark.parametrize("kernel", ["numba", "eager"])
def test_sums_as_large_as_they_can_be_are_exact(kernel):
    """Every coefficient 1 and every input at the end of the grid: sixteen bits must not overflow."""
    use_bit_kernel(kernel)
    layer = BitKAN(999, 3)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    packed, x = PackedBitKAN.from_bit_kan(layer), torch.ones(1, 999)
    layer.norm_weight.data.fill_(9.0)
    packed.norm_weight.fill_(9.0)
    assert torch.equal(packed(x), layer(x))
    assert packed(x)[0, 0] / packed.scale[0] == 999 * int(layer.table().codes[-1].sum())


@pytest.mark.parametrize("kernel", ["numba", "eager"])
def test_poison_stays_with_its_token(kernel):
    use_bit_kernel(kernel)
    layer, x = make(13, 5), randn(40, 13)
    packed = PackedBitKAN.from_bit_kan(layer)
    for rows in (8, 40):
        for bad in (math.nan, math.inf, -math.inf):
            poisoned = x[:rows].clone()
            poisoned[3, 6] = bad
            found = packed(poisoned)
            assert found[3].isnan().all()
            found[3] = 0
            assert found.isfinite().all()


def test_the_gradient_of_the_input_is_that_of_the_layer():
    layer = make(13, 5, grid_size=4, reach=2.0)
    packed = PackedBitKAN.from_bit_kan(layer)
    for rows in (1, 50):
        x, into = (2 * randn(rows, 13)).requires_grad_(), randn(rows, 5, seed=1)
        expected = torch.autograd.grad(layer(x), x, into)[0]
        torch.testing.assert_close(torch.autograd.grad(packed(x), x, into)[0], expected, atol=1e-5, rtol=1e-5)


def test_casts_copies_and_states_keep_the_bits():
    layer, x = make(13, 5), randn(4, 13)
    packed = PackedBitKAN.from_bit_kan(layer)
    y = packed(x)
    empty = PackedBitKAN(13, 5)
    assert (empty(x) == 0).all()
    empty.load_state_dict(packed.state_dict())
    assert torch.equal(empty(x), y)
    ghost = PackedBitKAN(13, 5, device="meta")
    assert all(buffer.is_meta for buffer in ghost.buffers())
    ghost.load_state_dict(packed.state_dict(), assign=True)
    assert torch.equal(ghost(x), y)
    twin = copy.deepcopy(packed)
    twin.scale_output_(2.0)
    assert torch.equal(twin(x), 2 * y)
    assert torch.equal(packed(x), y)
    half = copy.deepcopy(packed).half()
    assert half.scale.dtype == torch.float32
    assert half(x.half()).dtype == torch.float16


def test_what_cannot_be_packed_says_so():
    layer = make(4, 3)
    with pytest.raises(TypeError, match="only a BitKAN can be packed here, got a Linear"):
        PackedBitKAN.from_bit_kan(torch.nn.Linear(4, 3))
    with pytest.raises(TypeError, match="only a BitLinear can be packed, got a BitKAN"):
        PackedBitLinear.from_bit_linear(layer)
    with pytest.raises(ValueError, match=r"PackedBitKAN takes 4 features on the last axis, got \(2, 5\)"):
        PackedBitKAN.from_bit_kan(layer)(randn(2, 5))
    with pytest.raises(ValueError, match="PackedBitKAN has no bias"):
        PackedBitKAN(4, 3, bias=True)
    with torch.no_grad():
        layer.weight[0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="weights hold NaN or infinity"):
        PackedBitKAN.from_bit_kan(layer)
