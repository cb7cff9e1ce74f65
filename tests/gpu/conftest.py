"""Checks that need a CUDA device, and the same bodies at tiny size wherever the tests run.

    python -m pytest tests/gpu -m gpu          on a machine with one GPU of the size the configs name (H200, 141 GB)
    python -m pytest tests/gpu -m "not gpu"    the same bodies, tiny and in fp32, on whatever device there is

Every body is a function of a size; its tests marked `gpu` run it at the paper's shapes in bf16 and are skipped where
there is no CUDA device. Nothing here starts more than one process or needs data that is not made here.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from megatron_train.ranks import parallel
from megatron_train.ranks.parallel import Ranks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """One process, on the GPU if there is one; what earlier tests left there is freed."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield parallel.initialise(1, 1)
    parallel.shut_down()
