"""The run files of lesson 08: well formed; the CPU twin trains, and GPU runs do when made small."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from kancourse.lab.run import plan
from kancourse.lab.study import Study, run_study
from kancourse.paths import PACKAGE

RUNS = PACKAGE.parent / "notebooks" / "runs"
SHORT = {"steps": 2, "warmup": 1, "eval_every": 2, "eval_batches": 1, "sample_tokens": 2, "device": "cpu"}
TINY = {"n_layer": 1, "n_head": 1, "n_embd": 8, "ffn_dim": 9, "block_size": 16, "batch_size": 2, "micro_batch": 1}
TEXT = "\n".join(
    f" = Lighthouse {n} = \n\n The light of tower number {n} reaches {n + 3} miles .\n" for n in range(400)
)


def shortened(name: str, **changes: object) -> Study:
    told = plan(RUNS / f"{name}.yaml").parameters
    told["base"] |= SHORT | changes
    told["arms"] = {arm: fields | ({"steps": 2} if "steps" in fields else {}) for arm, fields in told["arms"].items()}
    return Study(**told | {"record": None, "lrs": [0.001], "sweep_steps": 1, "n_seeds": 1})


@pytest.mark.parametrize("machine", ["cpu", "l4", "a100"])
def test_the_race_on_wikitext_trains_when_made_small(
    machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wikitext2", "wikitext103"):
        (tmp_path / name).mkdir()
        table = pyarrow.table({"text": TEXT.splitlines(keepends=True)})
        for split in ("train", "validation"):
            pyarrow.parquet.write_table(table, tmp_path / name / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("KANCOURSE_DATA", str(tmp_path))
    changes = {} if machine == "cpu" else TINY | {"tokenizer": "bytes", "compile": False}
    record = run_study(shortened(f"elephant_wikitext103.{machine}", bpe_size=300, **changes))
    arms = record["arms"]
    assert [arms[name]["model"]["ffn"] for name in arms] == ["swiglu", "elephant", "elephant"]
    assert len({arm["parameters"]["total"] for arm in arms.values()}) == 1
    assert all(arm["runs"][0]["steps"] == 2 for arm in arms.values())


@pytest.mark.parametrize(
    "name",
    [f"elephant_wikitext103.{machine}" for machine in ("l4", "a100")]
    + ["elephant_race.cpu", "elephant_race_shakespeare.cpu"],
)
def test_the_direct_test_gives_the_elephant_two_thirds(name: str) -> None:
    study = Study(**plan(RUNS / f"{name}.yaml").parameters)
    whole, less = (study.experiment(arm) for arm in ("elephant", "elephant, two thirds of the steps"))
    assert less.steps * 3 == whole.steps * 2
    assert len(study.lrs) >= 3
    assert study.n_seeds >= (1 if "l4" in name else 3)


@pytest.mark.parametrize("name", ["race", "race_shakespeare", "forgetting"])
def test_the_arms_of_the_studies_are_of_equal_size(name: str) -> None:
    study = Study(**plan(RUNS / f"elephant_{name}.cpu.yaml").parameters)
    assert study.record == f"elephant_{name}"
    assert study.n_seeds >= 3
    from kancourse.zoo import build

    totals = {
        arm: sum(p.numel() for p in build(study.experiment(arm).model_config(100)).parameters()) for arm in study.arms
    }
    assert max(totals.values()) <= 1.01 * min(totals.values()), totals
