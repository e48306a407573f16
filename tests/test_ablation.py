"""The sixteen arms of the ablation: all there, each what its name says, and equal in what they are to be equal in.

Run: pytest tests/test_ablation.py
"""

import pytest
import torch

from kancourse.attention import CausalSelfAttention
from kancourse.bit_kan import BitKANFeedForward
from kancourse.bitnet import BitLinear
from kancourse.kan import KANFeedForward
from kancourse.lab.ablation import active_parameters, arm_fields, arms, equal_active, equal_bytes, make, total_bytes
from kancourse.lab.experiment import run_experiment
from kancourse.lab.run import plan
from kancourse.lab.study import Study
from kancourse.moe import MoE
from kancourse.packed import pack_linears
from kancourse.paths import PACKAGE
from kancourse.retention import MultiScaleRetention

RUNS = PACKAGE.parent / "notebooks" / "runs"
STUDIES = {"mixkabrn_ablation": (85_000, active_parameters), "mixkabrn_ablation_bytes": (240_000, total_bytes)}
SHORT = {"steps": 2, "warmup": 1, "eval_every": 2, "eval_batches": 1, "n_documents": 30, "probes": (), "n_seeds": 1}


def study(name: str) -> Study:
    return Study(**plan(RUNS / f"{name}.cpu.yaml").parameters)


@pytest.mark.parametrize("name", STUDIES)
def test_the_arms_are_all_there_and_equal_and_what_they_are_called(name):
    target, size = STUDIES[name]
    told = study(name)
    assert list(told.arms) == [arm for arm, _ in arms()]
    for arm, ideas in arms():
        model = make(told.base | told.arms[arm])
        assert abs(size(model) / target - 1) < 0.03, arm
        block = model.blocks[0]
        assert isinstance(block.mixer, MultiScaleRetention if "retention" in ideas else CausalSelfAttention)
        assert isinstance(block.mixer.c_proj, BitLinear) == ("bit" in ideas)
        assert isinstance(block.ffn, MoE) == ("experts" in ideas)
        expert = block.ffn.experts[0] if "experts" in ideas else block.ffn
        assert isinstance(expert, BitKANFeedForward) == ({"bit", "kan"} <= set(ideas))
        assert isinstance(expert, KANFeedForward) == ("kan" in ideas and "bit" not in ideas)
        width = (told.arms[arm].get("ffn_options") or {}).get("expert_dim") or told.arms[arm]["ffn_dim"]
        assert told.arms[arm] == arm_fields(ideas, model.config.n_embd, width)


def test_the_helpers_give_what_the_run_files_have():
    told = study("mixkabrn_ablation")
    base = {name: told.base[name] for name in ("model", "n_layer", "n_head")}
    assert equal_active(85_000, 64, base) == told.arms
    told = study("mixkabrn_ablation_bytes")
    base = {name: told.base[name] for name in ("model", "n_layer", "n_head")}
    assert equal_bytes(240_000, base, shape=2.0, widths=range(32, 161, 4)) == told.arms
    with pytest.raises(ValueError, match=r"no width of \[200\] brings 'none' within 2.5% of 240,000 bytes"):
        equal_bytes(240_000, base, shape=2.0, widths=[200])


def test_the_control_at_sixteen_bits_has_twice_the_numbers():
    told = study("mixkabrn_half_floats")
    for arm, changes in told.arms.items():
        assert abs(total_bytes(make(told.base | changes)) / 480_000 - 1) < 0.025, arm
    main = study("mixkabrn_ablation_bytes")
    assert (told.base, told.lrs, told.sweep_steps) == (main.base, main.lrs, main.sweep_steps)


def test_active_parameters_leave_out_experts_that_rest_and_bytes_are_those_of_the_packed_model():
    name, ideas = list(arms())[-1]
    assert name == "bit + retention + experts + kan"
    base = {"model": "llama-nano", "n_layer": 2, "n_head": 2}
    model = make(base | arm_fields(ideas, 16, 3))
    idle = sum(p.numel() for block in model.blocks for e in block.ffn.experts[:6] for p in e.parameters())
    assert active_parameters(model) == sum(p.numel() for p in model.blocks.parameters()) - idle
    assert total_bytes(model) == total_bytes(pack_linears(model))


@pytest.mark.parametrize("arm", ["none", "experts + kan", "bit + retention + experts + kan"])
def test_arms_train_as_they_stand(arm):
    told = study("mixkabrn_ablation")
    given = told.base | told.arms[arm] | SHORT
    loss = run_experiment(type(told.experiment(arm))(**given))["val_loss"]["mean"]
    assert 3 < loss < 7
    assert torch.tensor(loss).isfinite()
