"""Swapping linear modules, in our GPT and in five families of transformers. Run: pytest tests/test_swap.py"""

import copy
import math
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kancourse.gpt import GPT, GPTConfig
from kancourse.kan import KANLinear, SharedKANLinear
from kancourse.lab.optim import decay_groups
from kancourse.splines import bspline_basis
from kancourse.swap import LinearPlus, swap_linears
from kancourse.zoo import build

IDS = torch.arange(14).reshape(2, 7) % 11 + 3


class FadingSplines(nn.Module):
    """Splines of the usual kind: nothing beyond the grid's extension. No in_features, and a bias of its own."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.spline_weight = nn.Parameter(torch.randn(out_features, in_features, 8) / in_features)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...ig,oig->...o", bspline_basis(x, low=-2.0, high=2.0), self.spline_weight)
        return y if self.bias is None else y + self.bias

    def load_linear_(self, weight: Tensor, bias: Tensor | None) -> None:
        middle = -2 + 0.8 * (torch.arange(8) - 1)  # the mean of the three inner knots of each basis function
        self.spline_weight.copy_(weight[..., None] * middle.to(weight))
        self.bias.copy_(bias)


class Scalable(nn.Linear):
    def scale_output_(self, factor: float) -> None:
        self.weight.mul_(factor)


def small_gpt(seed: int = 0, **overrides) -> GPT:
    return build("gpt-nano", vocab_size=37, block_size=12, n_layer=2, n_head=2, n_embd=16, seed=seed, **overrides)


def hf_model(family: str, **options) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    usual = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bart = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 1), ("ffn_dim", 24))}
    bart |= {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "forced_eos_token_id": None}
    known = {
        "Bert": ("BertForMaskedLM", usual),
        "Roberta": ("RobertaForMaskedLM", usual),
        "DistilBert": ("DistilBertForMaskedLM", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
        "Bart": ("BartForConditionalGeneration", bart),
        "GPT2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}),
    }
    name, sizes = known[family]
    config = getattr(transformers, f"{family}Config")(vocab_size=31, **sizes, **options)
    return getattr(transformers, name)(config).eval()


def logits(model: nn.Module) -> Tensor:
    out = model(IDS)
    return out if isinstance(out, Tensor) else out.logits


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


FAMILIES = {"ours": 8, "Bert": 13, "Roberta": 13, "DistilBert": 13, "Bart": 16, "GPT2": 8}


def any_model(family: str) -> nn.Module:
    return small_gpt().eval() if family == "ours" else hf_model(family)


# --- the six families ---


@pytest.mark.parametrize("family", FAMILIES)
def test_swap_runs_learns_counts_and_comes_back_bit_for_bit(family):
    model = any_model(family)
    modules, before, state = dict(model.named_modules()), logits(model), copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    report = swap_linears(model, KANLinear)
    assert len(report.swapped) == FAMILIES[family]
    assert (len(report.left), report.left[0].why.split(" (")[0]) == (1, "it is the output embedding")
    assert report.parameters_before == sum(p.numel() for p in parameters)
    assert report.parameters_after == count(model)
    gained = sum(swap.parameters_after - swap.parameters_before for swap in report.swapped)
    assert report.parameters_after - report.parameters_before == gained

    after = logits(model)
    assert after.shape == before.shape
    assert not torch.equal(after, before)
    model.zero_grad()
    after.logsumexp(-1).sum().backward()
    for swap in report.swapped:
        assert model.get_submodule(swap.name) is swap.new
        for name, parameter in swap.new.named_parameters():
            moves_nothing = name == "bias" and re.search(
                r"key|k_proj|k_lin", swap.name
            )  # all scores of a softmax alike
            assert parameter.grad is not None, (swap.name, name)
            assert moves_nothing or parameter.grad.abs().max() > 1e-6, (swap.name, name)

    report.undo()
    assert dict(model.named_modules()) == modules  # modules compare by identity
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "factory",
    [KANLinear, SharedKANLinear, partial(SharedKANLinear, rank=2), partial(LinearPlus, extra=KANLinear), nn.Linear],
)
def test_a_warm_start_is_the_same_function(family, factory):
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):  # of a layer's largest output
        model = any_model(family).to(dtype)
        before = logits(model)
        report = swap_linears(model, factory, warm_start=True)
        assert {swap.kind for swap in report.swapped} == {"Conv1D" if family == "GPT2" else "Linear"}
        assert (logits(model) - before).abs().max() <= tolerance * before.abs().max()
        deviations = report.deviations(IDS).values()
        assert all(deviation.largest_difference <= tolerance * deviation.largest_output for deviation in deviations)


@pytest.mark.parametrize("family", ["Bert", "GPT2"])
def test_head_of_transformers_can_be_untied_and_stays_so(family):
    model = hf_model(family)
    name = {"Bert": "cls.predictions.decoder", "GPT2": "lm_head"}[family]
    embedding = model.get_input_embeddings().weight
    before, logits_before = count(model), logits(model)
    with pytest.raises(ValueError, match=rf"{name} \(Linear\) cannot be swapped: its weight is also .*untie=True"):
        swap_linears(model, nn.Linear, where=name)
    model.config.tie_word_embeddings = False
    report = swap_linears(model, nn.Linear, where=name, untie=True, warm_start=True)
    model.tie_weights()
    head = model.get_submodule(name)
    assert head.weight is not embedding
    assert model.get_input_embeddings().weight is embedding
    assert report.parameters_after == count(model) > before
    torch.testing.assert_close(logits(model), logits_before, rtol=0, atol=1e-6)
    report.undo()
    assert model.get_submodule(name).weight is embedding
    assert count(model) == before


def test_an_untied_output_embedding_is_left_unless_named():
    model = hf_model("DistilBert", tie_word_embeddings=False)
    left = swap_linears(model, nn.Linear).left
    assert [(entry.name, entry.why) for entry in left] == [
        ("vocab_projector", "it is the output embedding (where= can name it)")
    ]
    assert [swap.name for swap in swap_linears(model, KANLinear, where="vocab_projector").swapped] == [
        "vocab_projector"
    ]
    ours = small_gpt(tie_head=False)
    assert [entry.name for entry in swap_linears(ours, nn.Linear).left] == ["lm_head"]
    assert swap_linears(ours, KANLinear, where="lm_head").swapped[0].out_features == 37


# --- warm starts ---


@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    bias=st.booleans(),
    seed=st.integers(0, 99),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    double=st.booleans(),
)
@settings(max_examples=25)
@pytest.mark.parametrize(
    "factory", [KANLinear, SharedKANLinear, partial(SharedKANLinear, rank=3), partial(LinearPlus, extra=KANLinear)]
)
def test_warm_layers_equal_the_matrix_near_and_far_and_learn(factory, inputs, outputs, bias, seed, size, double):
    torch.manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=bias)).to(dtype)
    x = size * torch.randn(5, inputs, dtype=dtype)
    before = model(x)
    report = swap_linears(model, factory, warm_start=True)
    after = model(x)
    tolerance = (1e-12 if double else 1e-6) * max(1.0, float(x.abs().sum(1).max()))
    torch.testing.assert_close(after, before, rtol=0, atol=tolerance)
    if isinstance(report.swapped[0].new, LinearPlus):  # it keeps the matrix: not even rounding differs
        assert torch.equal(after, before)
    after.square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in report.swapped[0].new.parameters())


def test_fading_splines_are_the_matrix_inside_their_grid_and_deviations_tell_where_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Identity())
    report = swap_linears(model, FadingSplines, warm_start=True)
    inside, outside = torch.tensor([[2.0, -2.0, 0.3]]), torch.tensor([[2.0, 9.0, 0.3]])
    near, far = report.deviations(inside)["0"], report.deviations(outside)["0"]
    assert near.largest_difference < 1e-6 < 0.1 < far.largest_difference
    assert (near.largest_input, far.largest_input) == (2.0, 9.0)
    assert far.largest_output == pytest.approx(report.swapped[0].old(outside).abs().max().item())
    assert math.isnan(report.deviations(torch.full((1, 3), torch.nan))["0"].largest_difference)
    assert not report.swapped[0].new._forward_hooks
    assert (model[0].in_features, model[0].out_features) == (3, 4)


def test_linear_plus_scales_both_its_parts():
    torch.manual_seed(0)
    layer = LinearPlus(3, 5, extra=KANLinear)
    nn.init.normal_(layer.extra.spline_weight)
    x = torch.randn(6, 3)
    before = layer(x)
    layer.scale_output_(0.25)
    torch.testing.assert_close(layer(x), 0.25 * before)


# --- our GPT ---


@pytest.mark.parametrize("factory", [KANLinear, partial(LinearPlus, extra=KANLinear)])
def test_decay_groups_cover_every_parameter_of_a_swapped_gpt_once(factory):
    model = small_gpt()
    swap_linears(model, factory, where="*.ffn.*")
    covered = [parameter for group in decay_groups(model, 0.1) for parameter in group["params"]]
    assert len(covered) == len({id(parameter) for parameter in covered})
    assert {id(parameter) for parameter in covered} == {id(parameter) for parameter in model.parameters()}
    assert model.step(IDS)[0].shape == (2, 7, 37)  # the cache asks c_proj for its in_features


def test_residual_projections_start_as_those_of_a_gpt_built_with_the_layer():
    swapped, plain = small_gpt(), small_gpt()
    torch.manual_seed(5)
    report = swap_linears(swapped, KANLinear, reinit_residual=True)
    torch.manual_seed(5)
    swap_linears(plain, KANLinear)
    factor = 1 / math.sqrt(2 * 2)
    for swap in report.swapped:
        scale = factor if swap.name.endswith("c_proj") else 1.0
        for name, parameter in swap.new.named_parameters():
            torch.testing.assert_close(parameter, scale * plain.get_submodule(swap.name).get_parameter(name))
    built = GPT(GPTConfig(vocab_size=37, block_size=12, n_layer=2, n_head=2, n_embd=16), linear=KANLinear)
    assert {key: value.shape for key, value in built.state_dict().items()} == {
        key: value.shape for key, value in swapped.state_dict().items()
    }
    std = [float(model.blocks[0].ffn.c_proj.spline_weight.detach().std()) for model in (built, swapped)]
    assert std[0] == pytest.approx(std[1], rel=0.05)


# --- which ones ---


@given(
    chosen=st.lists(st.integers(0, 7), min_size=1, unique=True), way=st.sampled_from(["names", "predicate", "again"])
)
@settings(max_examples=20)
def test_any_selection_swaps_just_that_and_nested_swaps_unwind(chosen, way):
    model = small_gpt().eval()
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    names, before = {linears[i] for i in chosen}, logits(model)
    reports = []
    if way == "again":  # one after the other
        reports = [swap_linears(model, KANLinear, where=name) for name in sorted(names)]
    else:
        where = sorted(names) if way == "names" else lambda name, module: name in names and module.in_features > 0
        reports = [swap_linears(model, KANLinear, where=where)]
        assert {entry.name for entry in reports[0].left} == {*linears, "lm_head"} - names
    assert {name for name, module in model.named_modules() if isinstance(module, KANLinear)} == names
    assert {swap.name for report in reports for swap in report.swapped} == names
    for report in reversed(reports):
        report.undo()
    assert torch.equal(logits(model), before)


def test_a_module_used_twice_is_swapped_once_and_stays_shared():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model = nn.ModuleDict({"a": inner, "b": nn.ModuleList([inner, inner[0]]), "c": nn.Linear(4, 4)})
    old = inner[0]
    report = swap_linears(model, KANLinear, where="b.1")  # one of its names is enough
    (swap,) = report.swapped
    assert (swap.name, swap.also) == ("a.0", ("b.0.0", "b.1"))
    assert model["a"][0] is model["b"][0][0] is model["b"][1] is swap.new
    assert report.parameters_after == count(model)
    report.undo()
    assert model["a"][0] is model["b"][0][0] is model["b"][1] is old


def test_modules_that_share_a_parameter_are_left_or_untied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    report = swap_linears(model, nn.Linear)
    assert [swap.name for swap in report.swapped] == ["2"]
    assert [entry.why.split(" (")[0] for entry in report.left] == [
        "its weight is also 1.weight",
        "its weight is also 0.weight",
    ]
    x, before = torch.randn(3, 4), model(torch.ones(1, 4))
    untied = swap_linears(model, nn.Linear, untie=True, warm_start=True)
    assert model[0].weight is not model[1].weight
    assert torch.equal(model(torch.ones(1, 4)), before)
    untied.undo()
    assert model[0].weight is model[1].weight
    assert model(x).shape == (3, 4)


def test_further_kinds_are_swapped_when_described():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix, self.offset = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix + self.offset

    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(Transposed(), Doubling(5, 2))
    with pytest.raises(ValueError, match=r"1: it is an nn.Linear with a forward of its own"):
        swap_linears(model, nn.Linear)
    x = torch.randn(4, 3)
    before = model(x)
    kinds = {Transposed: lambda m: (m.matrix.T, m.offset), Doubling: lambda m: (2 * m.weight, 2 * m.bias)}
    report = swap_linears(model, nn.Linear, warm_start=True, kinds=kinds)
    assert [swap.kind for swap in report.swapped] == ["Transposed", "Doubling"]
    torch.testing.assert_close(model(x), before)


# --- what the new module takes over ---


def test_device_dtype_mode_and_frozenness_are_kept():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    model[2].eval()
    with torch.no_grad():  # where a view of a weight claims to need no gradient
        swap_linears(model, KANLinear)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert [layer.training for layer in model] == [True, True, False]
    trains = [{name for name, parameter in layer.named_parameters() if parameter.requires_grad} for layer in model]
    assert trains == [set(), {"bias"}, {"base_weight", "spline_weight", "bias"}]

    with torch.device("meta"):
        ghost = nn.Sequential(nn.Linear(4, 6))
    swap_linears(ghost, partial(LinearPlus, extra=Scalable))
    assert {parameter.device.type for parameter in ghost.parameters()} == {"meta"}


def test_a_kind_without_parameters_freezes_nothing():
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", torch.ones(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.codes.T

    model = nn.Sequential(Packed())
    report = swap_linears(model, nn.Linear, kinds={Packed: lambda m: (m.codes, None)}, warm_start=True)
    assert torch.equal(model(torch.ones(1, 4)), torch.full((1, 3), 4.0))
    assert model[0].weight.requires_grad
    report.undo()
    assert isinstance(model[0], Packed)


def test_undo_follows_a_model_that_was_cast_and_switched_to_eval():
    model = small_gpt()
    weight = model.blocks[0].ffn.c_fc.weight
    report = swap_linears(model, KANLinear)
    model.double().eval()
    report.undo()
    assert model.blocks[0].ffn.c_fc.weight is weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
    assert not any(module.training for module in model.modules())
    assert logits(model).dtype == torch.float64
    model.float()
    report = swap_linears(model, KANLinear, where="*.c_fc")
    assert report.deviations(IDS).keys() == {"blocks.0.ffn.c_fc", "blocks.1.ffn.c_fc"}
    model.double()
    assert all(deviation.largest_difference > 0 for deviation in report.deviations(IDS).values())


def test_trying_out_draws_no_random_numbers_and_leaves_no_gradient():
    model = nn.Sequential(nn.Linear(4, 4))
    state = torch.get_rng_state()
    swap_linears(model, lambda i, o, bias: nn.Sequential(nn.Dropout(0.5), nn.Identity()))
    assert torch.equal(torch.get_rng_state(), state)
    assert model[0][0].training


# --- the report ---


def test_report_prints_a_table():
    model = small_gpt()
    text = str(swap_linears(model, KANLinear, where=["blocks.0.ffn.c_fc"]))
    first, row, *_, total = text.splitlines()
    assert first.split("  ")[0] == "swapped"
    assert " ".join(row.split()) == "blocks.0.ffn.c_fc Linear → KANLinear 16 → 64 1,088 → 9,280"
    assert "lm_head" in text
    assert total == f"1 swapped, 8 left; {count(small_gpt()):,} → {count(model):,} parameters in the model"


def test_undo_twice_or_out_of_order_is_refused_and_changes_nothing():
    model = small_gpt()
    first = swap_linears(model, KANLinear, where="blocks.0.*")
    second = swap_linears(
        model, nn.Linear, where="*.0.ffn.c_proj", kinds={KANLinear: lambda m: (m.base_weight, m.bias)}
    )
    with pytest.raises(RuntimeError, match=r"blocks.0.ffn.c_proj is no longer the KANLinear .* undone first"):
        first.undo()
    assert isinstance(model.blocks[0].mixer.c_attn, KANLinear)
    second.undo()
    first.undo()
    with pytest.raises(RuntimeError, match="undone already"):
        first.undo()


# --- errors: one sentence each, and the model as it was ---


class Flat(nn.Linear):
    """Loses an output."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., :-1]


SAME = nn.Linear(16, 16)
ERRORS = {
    "typo": (
        {"where": "*.c_porj"},
        ValueError,
        r"where='\*.c_porj' matches no linear module; there are 9, such as blocks",
    ),
    "short": ({"where": "c_proj"}, ValueError, r"patterns match whole names, so '\*c_proj\*' would match"),
    "one of two": ({"where": ["*c_fc", "head"]}, ValueError, r"where='head' matches .* such as lm_head"),
    "predicate": ({"where": lambda name, module: False}, ValueError, r"no linear module is selected .*there are 9"),
    "empty": ({"where": []}, ValueError, r"no linear module is selected"),
    "tied": ({"where": "lm_*"}, ValueError, r"selected that can be swapped; lm_head: its weight is also wte.weight"),
    "shape": (
        {"factory": Flat},
        ValueError,
        r"blocks.0.mixer.c_attn: the new Flat turns \(2, 3, 16\) into \(2, 3, 47\)",
    ),
    "no module": ({"factory": lambda *_, bias: torch.relu}, TypeError, r"must make an nn.Module, for blocks.0"),
    "same twice": (
        {"factory": lambda i, o, bias: SAME, "where": "*mixer.c_proj"},
        ValueError,
        r"returned the same module twice",
    ),
    "cannot load": (
        {"factory": lambda i, o, bias: nn.Bilinear(i, i, o), "warm_start": True},
        TypeError,
        r"needs Bilinear.load_linear_\(weight, bias\)",
    ),
    "loses bias": (
        {"factory": lambda i, o, bias: nn.Linear(i, o, bias=False), "warm_start": True},
        ValueError,
        r"the old layer has a bias and the new Linear has none",
    ),
    "both": ({"warm_start": True, "reinit_residual": True}, ValueError, r"ask for one of them"),
    "cannot scale": (
        {"factory": FadingSplines, "reinit_residual": True},
        TypeError,
        r"FadingSplines has no scale_output_",
    ),
    "plus": ({"factory": partial(LinearPlus, extra=FadingSplines)}, TypeError, r"FadingSplines has no scale_output_"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_refused_swap_says_why_and_leaves_the_model_alone(case):
    arguments, error, message = ERRORS[case]
    model = small_gpt()
    modules = dict(model.named_modules())
    with pytest.raises(error, match=message):
        swap_linears(model, **{"factory": nn.Linear, **arguments})
    assert dict(model.named_modules()) == modules


def test_an_extra_that_is_not_silenced_is_refused():
    class Loud(Scalable):
        def scale_output_(self, factor: float) -> None:
            pass

    LinearPlus(3, 3, extra=Scalable)
    with pytest.raises(TypeError, match=r"scale_output_\(0.0\) of Loud leaves an output that is not zero"):
        LinearPlus(3, 3, extra=Loud)


def test_residual_scale_needs_a_number_of_layers():
    with pytest.raises(ValueError, match=r"reinit_residual needs model.config.n_layer"):
        swap_linears(nn.ModuleDict({"c_proj": nn.Linear(2, 2)}), nn.Linear, reinit_residual=True)
    theirs = hf_model("GPT2")
    theirs.config.n_layer = 8
    torch.manual_seed(0)
    report = swap_linears(theirs, nn.Linear, reinit_residual=True, where="*mlp.c_proj")
    bound = 1 / math.sqrt(64) / math.sqrt(2 * 8)  # of nn.Linear's uniform start, scaled
    assert 0.9 * bound < report.swapped[0].new.weight.abs().max().item() <= bound


def hooked() -> nn.Module:
    linear = nn.Linear(4, 4)
    linear.register_forward_pre_hook(lambda module, args: None)
    return linear


def replaced_forward() -> nn.Module:
    linear = nn.Linear(4, 4)
    linear.forward = lambda x: x
    return linear


OBSTACLES = {
    "hooks": (hooked, r"0: it has hooks"),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), r"0: it has parametrizations"),
    "lazy": (lambda: nn.LazyLinear(4), r"0: its weight has no shape yet"),
    "replaced": (replaced_forward, r"0: its forward was replaced"),
    "attention": (lambda: nn.MultiheadAttention(4, 2), r"0: it packs .*; 0.out_proj: nn.MultiheadAttention reads"),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 8), r"0.linear1: nn.TransformerEncoderLayer reads its weight"),
    "no linear": (lambda: nn.Conv1d(4, 4, 1), r"the model has none of a known kind"),
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_cannot_be_swapped_is_refused_alone_and_left_in_company(case):
    make, message = OBSTACLES[case]
    model = nn.Sequential(make())
    with pytest.raises(ValueError, match=message):
        swap_linears(model, nn.Linear)
    model.append(nn.Linear(4, 4))
    report = swap_linears(model, nn.Linear)
    assert [swap.name for swap in report.swapped] == ["1"]
    assert all(entry.why for entry in report.left)
    if case != "no linear":
        name = "0.linear1" if case == "encoder" else "0"
        with pytest.raises(ValueError, match=rf"^{name} \(\w+\) cannot be swapped: "):
            swap_linears(model, nn.Linear, where=[name, "1"])


def test_the_model_itself_a_compiled_and_a_wrapped_one_are_refused():
    with pytest.raises(ValueError, match="it is the model itself"):
        swap_linears(nn.Linear(2, 2), nn.Linear)
    in_place = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    in_place[0].compile(backend="eager")
    with pytest.raises(ValueError, match=r"^0 is compiled: swap first"):
        swap_linears(in_place, nn.Linear)
    with pytest.raises(ValueError, match=r"^the model is compiled: swap first"):
        swap_linears(torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager"), nn.Linear)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(2, 2)))
        with pytest.raises(ValueError, match="the model is wrapped as DistributedDataParallel: swap first"):
            swap_linears(wrapped, nn.Linear)
    finally:
        torch.distributed.destroy_process_group()
