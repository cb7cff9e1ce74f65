"""What every test shares: no network, one torch thread, and a counted skip where the real data folder is absent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hub_branches import Branches
from hypothesis import settings

PROJECT = Path(__file__).resolve().parents[1]
SHARED_DATA = PROJECT.parent / "shared" / "data"

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_USAGE_STATS_REPORT_URL="http://127.0.0.1:9",
    OMP_NUM_THREADS="1",
)
# No property is one of time: on a busy machine a single write may take a second.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a background job; what it starts would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-size", action="store_true", help="tests that know two sizes run at the larger one")


@pytest.fixture(scope="session")
def full_size(request: pytest.FixtureRequest) -> bool:
    """Whether a test shall run for minutes (an experiment) or be a smaller one of the same kind."""
    return bool(request.config.getoption("--full-size"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED_DATA.is_dir():
        return
    absent = pytest.mark.skip(reason="the real data folder ../shared/data is absent")
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora and benchmarks (tests that use it carry the marker `shared_data`)."""
    return SHARED_DATA


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Branches:
    """In the place of huggingface_hub's client."""
    fake = Branches()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)
    return fake
