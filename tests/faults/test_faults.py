"""Five studies under random faults end as if nothing had happened; the published tables are those of the results."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from faults import RESULTS, Reference, damage_line, disturbed, plan, table
from injections import ALL, COMPLETE, DESCRIBED, damage, follow_advice

from configs.layout import PROJECT_ROOT
from configs.workflow.units import KINDS

RUNS = 5
PAGE = PROJECT_ROOT / "docs" / "faults.md"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference.make(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_disturbed_study_ends_with_the_same_bytes(reference: Reference, seed: int, tmp_path: Path) -> None:
    outcome = disturbed(reference, tmp_path, seed)
    assert not outcome.broken, outcome.broken
    assert not outcome.differing and outcome.strikes, outcome
    assert len(reference.artefacts) > 150  # shards, exports, scores, metrics, tables, figures


def test_fifty_runs_meet_every_fault_in_every_phase() -> None:
    drawn = [one for seed in range(50) for one in plan(seed, random.Random(f"{seed}/0"))]
    assert {name for name, _ in drawn} == set(ALL) == set(DESCRIBED)
    for name in ALL:
        phases = {moment.kind for fault, moment in drawn if fault == name}
        assert phases == {*KINDS, COMPLETE} if name == "corrupt" else phases == set(KINDS)


def test_the_same_seed_draws_the_same_faults() -> None:
    assert plan(7, random.Random("7/0")) == plan(7, random.Random("7/0")) != plan(7, random.Random("7/1"))


def test_damage_is_done(tmp_path: Path) -> None:
    path = tmp_path / "part"
    for seed in range(20):
        path.write_bytes(bytes(range(40)))
        what = damage(path, random.Random(seed))
        bits = sum((a ^ b).bit_count() for a, b in zip(path.read_bytes(), range(40), strict=False))
        assert (what == "truncated") == (path.stat().st_size < 40) and bits == (what != "truncated")


def test_only_what_a_message_says_is_deleted(tmp_path: Path) -> None:
    folder, file = tmp_path / "shards", tmp_path / "shards" / "part.bin"
    folder.mkdir()
    file.touch()
    assert follow_advice(f"error: {file}: cut short\n  next:  delete {folder} and rerun", tmp_path) == ([folder], ())
    assert follow_advice(f"error: {file}: not valid JSON\n  next:  delete it and rerun", tmp_path) == ([file], ())
    assert follow_advice(f"error: {file}: cut short", tmp_path) == ([], ())
    assert follow_advice("2 units\n  next:  --stale redo makes them again", tmp_path) == ([], ("--stale", "redo"))


def test_the_page_has_the_tables_of_the_results() -> None:
    results, page = json.loads(RESULTS.read_text()), PAGE.read_text()
    assert table(results) in page and damage_line(results) in page
    assert all(run["recovered"] and all(strike["hit"] for strike in run["strikes"]) for run in results["runs"])
