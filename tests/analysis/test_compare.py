"""Two checkpoints on the same examples, against scipy, brute force and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.compare.__main__ import main
from analysis.compare.comparison import (
    comparison_table,
    difference_interval,
    mcnemar,
    pair_examples,
    read_checkpoint,
    swap_test,
)
from configs.errors import ArtifactError, ConfigError

Write = Callable[..., Path]
MakeRow = Callable[..., dict[str, Any]]


def score_file(path: Path, write: Write, make_row: MakeRow, right: dict[str, str], **given: Any) -> Path:
    """right: benchmark -> a letter an example, r where the answer is right."""
    category = {"piqa": "commonsense", "boolq": "commonsense", "cb": "nli"}
    rows = [
        make_row(
            benchmark=slug,
            category=category[slug],
            example_id=f"validation/{i}",
            logprob_sum=[-1.0, -2.0] if letter == "r" else [-2.0, -1.0],
            **given,
        )
        for slug, letters in right.items()
        for i, letter in enumerate(letters)
        if letter != "-"
    ]
    return write(path, rows)


@pytest.fixture
def two(tmp_path: Path, writer: Write, make_row: MakeRow) -> tuple[Path, Path]:
    a = {"piqa": "rrrr....rr", "boolq": "r.r.", "cb": "rrr"}
    b = {"piqa": "rr..rrrrr-", "boolq": "rrrr"}
    return (
        score_file(tmp_path / "a.parquet", writer, make_row, a),
        score_file(tmp_path / "b/deep/b.parquet", writer, make_row, b, checkpoint="d" * 64, mixture="V2P0"),
    )


def test_by_hand(two: tuple[Path, Path]) -> None:
    pairs = pair_examples(read_checkpoint(two[0]), read_checkpoint(two[1].parent.parent), "sum")
    assert [(pair.slug, len(pair.a), pair.left_out) for pair in pairs] == [("piqa", 9, 1), ("boolq", 4, 0)]
    table = comparison_table(pairs, "a", "b")
    rows = {row.keys[0]: row for row in table.rows}
    # PIQA, nine common examples: A has 5 right, B 7; two only A's, four only B's
    piqa = rows["PIQA"]
    assert piqa.estimate.value == pytest.approx(100 * 2 / 9) and table.texts(piqa) == ["55.6", "77.8", "2", "4", "1"]
    assert piqa.estimate.p == pytest.approx(stats.binomtest(4, 6).pvalue)
    assert piqa.estimate.arrangements == 64 and piqa.estimate.smallest_p == pytest.approx(2 / 64)
    both = rows["mean of Commonsense"]
    assert both.estimate.value == pytest.approx(100 * (2 / 9 + 2 / 4) / 2) and table.texts(both)[:2] == ["52.8", "88.9"]
    assert set(rows) == {"PIQA", "BoolQ", "mean of Commonsense", "mean of 2 benchmarks"}
    assert all(
        row.q is not None and row.estimate.low <= row.estimate.value <= row.estimate.high for row in rows.values()
    )


@given(st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=1, max_size=11))
def test_mcnemar_is_the_share_of_all_swaps(gap: list[int]) -> None:
    moving = [g for g in gap if g]
    swaps = [abs(np.dot(signs, moving)) for signs in itertools.product((1, -1), repeat=len(moving))]
    p, smallest = mcnemar(np.array(gap))
    assert p == pytest.approx(np.mean([swap >= abs(sum(gap)) for swap in swaps]))
    assert smallest == pytest.approx(np.mean([swap == max(swaps) for swap in swaps]) if moving else 1.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_swapping_one_benchmark_agrees_with_mcnemar(seed: int) -> None:
    gap = np.random.default_rng(seed).choice([-1, 0, 0, 1], 60)
    assert swap_test([gap])[0] == pytest.approx(mcnemar(gap)[0], abs=0.02)


def test_the_interval_is_that_of_a_bootstrap_over_examples() -> None:
    random = np.random.default_rng(0)
    gaps = [random.choice([-1, 0, 1], n, p=[0.1, 0.6, 0.3]) for n in (60, 400)]
    drawn = [np.mean([random.choice(gap, len(gap)).mean() for gap in gaps]) for _ in range(4000)]
    assert difference_interval(gaps) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.01)
    swap = [np.mean([(gap * random.choice((-1, 1), len(gap))).mean() for gap in gaps]) for _ in range(4000)]
    observed = abs(np.mean([gap.mean() for gap in gaps]))
    assert swap_test(gaps)[0] == pytest.approx(np.mean(np.abs(swap) >= observed), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_b_less_a_is_minus_a_less_b(seed: int) -> None:
    gap = np.random.default_rng(seed).choice([-1, 0, 1], 50)
    assert mcnemar(gap) == mcnemar(-gap)
    low, high = difference_interval([gap])
    assert difference_interval([-gap]) == pytest.approx((-high, -low), abs=0.05)


def test_false_alarms_are_as_rare_as_they_say() -> None:
    """Two checkpoints that do not differ: p < 0.05 at most five times in a hundred."""
    random = np.random.default_rng(1)
    p = [mcnemar(random.choice([-1, 0, 1], 80, p=[0.2, 0.6, 0.2]))[0] for _ in range(1000)]
    assert np.mean(np.array(p) < 0.05) <= 0.055


def test_a_checkpoint_with_itself_does_not_differ(two: tuple[Path, Path]) -> None:
    same = read_checkpoint(two[0])
    for row in comparison_table(pair_examples(same, same, "sum"), "a", "a").rows:
        assert row.estimate.value == 0 and row.estimate.p == 1 and (row.estimate.low, row.estimate.high) == (0, 0)


def test_a_link_to_a_score_file_adds_no_rows(two: tuple[Path, Path]) -> None:
    alone = len(read_checkpoint(two[1]).example)
    two[1].with_name("again.parquet").symlink_to(two[1])
    assert len(read_checkpoint(two[1].parent).example) == alone


def test_messages(two: tuple[Path, Path], tmp_path: Path, writer: Write, make_row: MakeRow) -> None:
    with pytest.raises(ArtifactError, match="no score file"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match="scores of 2 checkpoints"):
        read_checkpoint(tmp_path)
    a, b = map(read_checkpoint, two)
    with pytest.raises(ConfigError, match="no benchmark has 'pmi' scores of both"):
        pair_examples(a, b, "pmi")
    other = score_file(tmp_path / "c.parquet", writer, make_row, {"piqa": "-" * 20 + "rr"}, checkpoint="e" * 64)
    with pytest.raises(ConfigError, match="piqa: the two were scored on different examples"):
        pair_examples(a, read_checkpoint(other), "sum")


def test_the_command(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    main([*map(str, two), "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("benchmark,paper,value") and len(lines) == 5 and lines[1].startswith("PIQA,")
    main([str(part) for part in two])
    out = capsys.readouterr().out
    assert "mean of 2 benchmarks" in out and "A: 240m V1P0 seed 0 PT step 10, B: 240m V2P0" in out.splitlines()[0]
