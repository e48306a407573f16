"""One thread, one Hypothesis profile, a cache of their own for the tests, and the rule for those that download."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for every process a test starts

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "kancourse",
    derandomize=True,  # the same examples on every machine: a red test is red for everybody
    deadline=None,  # the first call of a torch function is slow
    database=None,
    max_examples=50,
)
hypothesis.settings.load_profile("kancourse")


@pytest.fixture(scope="session", autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither use nor fill the reader's cache; processes that they start inherit this one."""
    os.environ["KANCOURSE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying so, what fetches from the internet, unless that was asked for."""
    if os.environ.get("KANCOURSE_DOWNLOAD") == "1":
        return
    for item in items:
        if item.get_closest_marker("download"):
            item.add_marker(pytest.mark.skip(reason="fetches from the internet; set KANCOURSE_DOWNLOAD=1 to run it"))
