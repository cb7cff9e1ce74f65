"""metrics.jsonl holds JSON only: a number that is not finite ends the run and is named in a record beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.artifacts import read_json
from configs.cost.model import Flops
from configs.errors import DivergedError
from megatron_train.ranks.parallel import Ranks
from megatron_train.training.metrics import Metrics, keep_until
from megatron_train.training.tracking import Tracking


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("is_main", [True, False])
def test_a_validation_loss_that_is_not_finite_ends_the_run(wrong: float, is_main: bool, tmp_path: Path) -> None:
    logged: list[Any] = []
    metrics = Metrics(
        tmp_path / "metrics.jsonl",
        cast("Ranks", SimpleNamespace(is_main=is_main)),
        steps=4,
        resumed_at=0,
        losses=[],
        describe=lambda step: [{"source": "arxiv", "step": step}],
        flops=Flops(1.0, 1.0),
        peak=None,
        tracking=cast("Tracking", SimpleNamespace(log=logged.extend)),
    )
    bytes_per_token = {"arxiv": 4.0, "books": 4.0}
    metrics.validation(1, 10, {"arxiv": 2.0, "books": 3.0}, bytes_per_token)
    with pytest.raises(DivergedError, match=f"step 2: validation loss on books {wrong}; stopped after that update"):
        metrics.validation(2, 20, {"arxiv": 2.0, "books": wrong}, bytes_per_token)
    record = tmp_path / "diverged-step-0000002.json"
    assert record.is_file() == metrics.path.is_file() == is_main
    if is_main:
        assert read_json(record)["validation loss on books"] == str(wrong)
        (line,) = map(json.loads, metrics.path.read_text().splitlines())
        assert line["validation"] == {"arxiv": 2.0, "books": 3.0} and logged == [line]
        keep_until(metrics.path, 2)  # a resumed run reads what is there
        assert len(metrics.path.read_text().splitlines()) == 1
