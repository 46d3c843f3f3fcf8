"""Before anything imports torch: one thread. Two on busy cores wait for each other, and take eight times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real demonstrations, with their training cache. Shared by all tests: copy it before changing it."""
    from vla.data.cache import open_cache
    from vla_sim.collect import CollectConfig, collect

    folder = tmp_path_factory.mktemp("demonstrations") / "dataset"
    collect(CollectConfig(episodes=6, seed=40), folder)
    open_cache(folder)
    return folder
