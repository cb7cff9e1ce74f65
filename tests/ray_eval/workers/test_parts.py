"""Part files: what is damaged or of something else is never used; what was interrupted goes on and ends the same."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kills import kill_while_scoring

from configs.errors import ResourceError
from configs.layout import StudyFolder
from configs.schema import StudyScoring
from ray_eval.models import batches, scorer
from ray_eval.models.forward_counts import ForwardCounts
from ray_eval.results import read_scores
from ray_eval.scoring import ScoreOptions, ScoringProgress, Summary, score_study
from ray_eval.workers.parts import Parts, parts_folder

ExportMaker = Callable[..., Path]
UNIT_WORK = 1e6
"""Operations: a batch or two."""
FACTS = {"plan": "p", "checkpoint": "c", "precision": "fp32", "layout": "l"}
UNIT, SUMS, COUNTS = range(3, 9), np.array([-1.5, -2e-9, -300.25]), ForwardCounts(10, 2, 3, 1)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    parts = Parts(tmp_path / "scores" / "step-1.parquet", FACTS)
    parts.write(UNIT, SUMS, COUNTS)
    return parts


def test_a_part_comes_back_as_it_was(parts: Parts, tmp_path: Path) -> None:
    assert parts.path(UNIT).parent == parts_folder(tmp_path / "scores" / "step-1.parquet")
    for _ in range(2):
        found = parts.read(UNIT)
        assert found is not None and found[1] == COUNTS
        assert found[0].dtype == np.float64 and found[0].tolist() == SUMS.tolist()
    assert parts.read(range(3, 8)) is None


def test_no_byte_of_a_part_can_change_unseen(parts: Parts) -> None:
    path = parts.path(UNIT)
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        assert parts.read(UNIT) is None and not path.exists(), i
    for end in (0, 1, 32, 40, len(content) - 1):
        path.write_bytes(content[:end])
        assert parts.read(UNIT) is None and not path.exists(), end
    path.write_bytes(content)
    assert parts.read(UNIT) is not None


@pytest.mark.parametrize("fact", FACTS)
def test_a_part_of_something_else_is_removed(fact: str, parts: Parts, tmp_path: Path) -> None:
    other = Parts(tmp_path / "scores" / "step-1.parquet", FACTS | {fact: "another"})
    assert other.read(UNIT) is None and not parts.path(UNIT).exists()


def test_a_part_under_the_name_of_another_unit_is_removed(parts: Parts) -> None:
    shutil.copyfile(parts.path(UNIT), parts.path(range(3, 8)))
    assert parts.read(range(3, 8)) is None and parts.read(UNIT) is not None


def test_a_full_disk_leaves_no_half_part(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, after=0)
    path = parts.path(range(9, 10))
    with pytest.raises(ResourceError, match="cannot be written \\(No space left on device\\)") as error:
        parts.write(range(9, 10), SUMS, COUNTS)
    assert str(path) in str(error.value) and [*path.parent.iterdir()] == [parts.path(UNIT)]


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """From the given number of files on, syncing one to disk fails."""
    left = [after]

    def fsync(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


# ---------------------------------------------------------------------------------------------- runs


def export_folder(runs: Path, seed: int) -> Path:
    return StudyFolder(runs, "trial").run("mini_s", "V1P0", seed, "pt").export(1)


@pytest.fixture
def runs(make_export: ExportMaker, tmp_path: Path) -> Path:
    for seed in (0, 1):
        make_export(export_folder(tmp_path / "runs", seed), seed=seed)
    return tmp_path / "runs"


def score(runs: Path, root: Path, **options: Any) -> Summary:
    return score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(documents_root=root, **{"use_ray": False, "unit_work": UNIT_WORK, **options}),
    )


def files(runs: Path) -> dict[str, bytes]:
    """Everything in the folder of the scores."""
    folder = runs / "trial" / "scores"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def undisturbed(runs: Path, root: Path) -> dict[str, bytes]:
    """What scoring gives; nothing is left behind by this."""
    score(runs, root, unit_work=None)
    scored = files(runs)
    shutil.rmtree(runs / "trial" / "scores")
    assert len(scored) == len(list((runs / "trial").glob("*/*/seed*"))) and all(".parts" not in name for name in scored)
    return scored


class Interruption(Exception):
    pass


def interrupt(runs: Path, root: Path, share: float, **options: Any) -> None:
    """Score up to a share of the work."""

    def stop(progress: ScoringProgress) -> None:
        if progress.share >= share:
            raise Interruption

    with pytest.raises(Interruption):
        score(runs, root, progress=stop, **options)


def resumed_tokens(runs: Path, root: Path, **options: Any) -> tuple[int, int]:
    """Score the rest: tokens that were forwarded for it, and for everything."""
    seen: list[ScoringProgress] = []
    summary = score(runs, root, progress=seen.append, **options)
    return seen[-1].num_tokens, summary.counts.tokens


def test_an_interrupted_run_goes_on_and_ends_the_same(runs: Path, benchmark_root: Path) -> None:
    expected = undisturbed(runs, benchmark_root)
    interrupt(runs, benchmark_root, 0.3)
    (folder,) = {Path(name).parent.name for name in files(runs)}
    assert folder == ".parts-step-0000001" and len(files(runs)) > 5
    now, whole = resumed_tokens(runs, benchmark_root)
    assert 0.5 * whole < now < 0.8 * whole and files(runs) == expected


def test_progress_counts_units(runs: Path, benchmark_root: Path) -> None:
    seen: list[ScoringProgress] = []
    summary = score(runs, benchmark_root, progress=seen.append)
    shares = [progress.share for progress in seen]
    assert len(seen) > 30 and shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert [progress.done for progress in seen if progress.step and progress.step.finished] == [1, 2]
    assert seen[0].eta_s is None and all(progress.eta_s for progress in seen[1:-1] if progress.share < 1)
    assert seen[-1].num_tokens == summary.counts.tokens == 2 * tokens_once(runs)
    assert seen[-1].num_examples == pytest.approx(2 * examples(runs))


def tokens_once(runs: Path) -> int:
    from ray_eval.plans.plan import load_plan

    (path,) = (runs / "trial" / "plans").glob("*.npz")
    return len(load_plan(path).rows.tokens)


def examples(runs: Path) -> int:
    return read_scores(runs / "trial" / "scores" / "mini_s" / "V1P0" / "seed0" / "pt" / "step-0000001.parquet").num_rows


def other_weights(runs: Path, monkeypatch: pytest.MonkeyPatch, make_export: ExportMaker) -> dict[str, Any]:
    shutil.rmtree(export_folder(runs, 0))
    make_export(export_folder(runs, 0), seed=7)
    return {}


def other_layout(runs: Path, monkeypatch: pytest.MonkeyPatch, make_export: ExportMaker) -> dict[str, Any]:
    monkeypatch.setattr(batches, "PADDED_SHARE", 1 / 4)
    return {}


def other_precision(runs: Path, monkeypatch: pytest.MonkeyPatch, make_export: ExportMaker) -> dict[str, Any]:
    return {"scoring": StudyScoring(precision="bf16")}


def other_examples(runs: Path, monkeypatch: pytest.MonkeyPatch, make_export: ExportMaker) -> dict[str, Any]:
    return {"scoring": StudyScoring(seed=5, unconditional=False)}


@pytest.mark.parametrize("change", [other_weights, other_layout, other_precision, other_examples])
def test_parts_of_something_else_are_not_used(
    change: Callable[..., dict[str, Any]],
    runs: Path,
    benchmark_root: Path,
    make_export: ExportMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(export_folder(runs, 1))
    interrupt(runs, benchmark_root, 0.6)
    before = files(runs)
    assert len(before) > 5
    options = change(runs, monkeypatch, make_export)
    now, whole = resumed_tokens(runs, benchmark_root, **options)
    assert now == whole
    resumed = files(runs)
    shutil.rmtree(runs / "trial" / "scores")
    score(runs, benchmark_root, **options)
    assert files(runs) == resumed and len(resumed) == 1


def test_a_damaged_part_is_scored_again(runs: Path, benchmark_root: Path) -> None:
    expected = undisturbed(runs, benchmark_root)
    interrupt(runs, benchmark_root, 0.45)
    for i, path in enumerate(sorted((runs / "trial" / "scores").rglob("*.part"))):
        if i % 2:
            path.write_bytes(path.read_bytes()[:-8])
    now, whole = resumed_tokens(runs, benchmark_root)
    assert 0.6 * whole < now < whole and files(runs) == expected


def test_what_a_finished_run_left_is_removed(runs: Path, benchmark_root: Path) -> None:
    expected = undisturbed(runs, benchmark_root)
    interrupt(runs, benchmark_root, 0.3)
    (folder,) = (runs / "trial" / "scores").rglob(".parts-*")
    kept = runs / "kept"
    shutil.copytree(folder, kept)
    score(runs, benchmark_root)
    shutil.copytree(kept, folder)  # as a kill between the score file and the removal leaves it
    assert score(runs, benchmark_root).skipped == 2 and files(runs) == expected


@pytest.mark.parametrize(("after", "full"), [(7, ".parts-step-0000001"), (0, "step-0000001.parquet")])
def test_a_full_disk_ends_the_run_and_it_goes_on_later(
    after: int, full: str, runs: Path, benchmark_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(runs, benchmark_root)
    work = UNIT_WORK if after else None
    with monkeypatch.context() as patch:
        fill_disk(patch, after)
        with pytest.raises(ResourceError, match=f"{full}.*No space left on device") as error:
            score(runs, benchmark_root, unit_work=work)
        assert "free disk space" in str(error.value) and len(files(runs)) == after
    now, whole = resumed_tokens(runs, benchmark_root, unit_work=work)
    assert (now < whole) == (after > 0) and files(runs) == expected


def test_near_ties_of_rounded_weights_are_settled_in_fp32(
    runs: Path, benchmark_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(export_folder(runs, 1))

    def sums(**options: Any) -> np.ndarray:
        score(runs, benchmark_root, **options)
        (path,) = (runs / "trial" / "scores").rglob("*.parquet")
        return np.concatenate(read_scores(path)["logprob_sum"].to_pylist())

    fp32, bf16 = sums(), sums(scoring=StudyScoring(precision="bf16"))
    assert np.abs(fp32 - bf16).max() > 1e-2
    shutil.rmtree(runs / "trial" / "scores")
    monkeypatch.setattr(scorer, "NEAR_TIE_NATS", float("inf"))
    assert np.abs(fp32 - sums(scoring=StudyScoring(precision="bf16"))).max() < 1e-4


# ---------------------------------------------------------------------------------------------- processes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_process_loses_nothing(seed: int, runs: Path, benchmark_root: Path) -> None:
    expected = undisturbed(runs, benchmark_root)
    units = 2 * 30
    at = int(np.random.default_rng(seed).integers(1, units // 2))  # files written: parts, or both parts and scores
    kill_while_scoring(runs, benchmark_root, UNIT_WORK, at, num_workers=0, checkpoints=2)
    now, whole = resumed_tokens(runs, benchmark_root)
    assert 0 < now < whole and files(runs) == expected
