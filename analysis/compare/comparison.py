"""Two checkpoints on the same examples: which is better, and is the difference more than chance?

In: score files of both. Out: a table with a row for each benchmark, category and the mean of all: accuracy of both, the
difference B - A, its interval, and a p-value with its null. Both answered the same examples, so everything is paired:
an example that both get right or both get wrong says nothing about the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.paper.numbers import CATEGORIES, category_of, displays
from analysis.rendering.table import Column, Row, Table, with_q_values
from analysis.scores.answers import Answers
from analysis.scores.gather import gather
from analysis.scores.score_files import read_score_file
from analysis.stats.estimates import Estimate
from analysis.stats.resampling import TOLERANCE
from configs.errors import ArtifactError, ConfigError
from configs.load import BENCHMARKS

DRAWS = 10_000
SEED = 20_240
COUNTED = 63
"""With more disagreements than this the number of ways to swap them is too large to tell a reader anything."""


@dataclass(frozen=True)
class Pair:
    """Both checkpoints on the examples of a benchmark that both answered."""

    slug: str
    a: np.ndarray
    """float64 [examples]: 1 where the answer is right."""
    b: np.ndarray
    left_out: int
    """Examples that only one of them answered."""


def compare_checkpoints(a: Path, b: Path, normalisation: str) -> Table:
    """The comparison of two checkpoints, each a score file or a folder of them."""
    sides = read_checkpoint(a), read_checkpoint(b)
    return comparison_table(pair_examples(*sides, normalisation), *map(describe_checkpoint, sides))


def read_checkpoint(path: Path) -> Answers:
    """Raises ArtifactError where there is no score file, a damaged one, or more than one checkpoint."""
    found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    files = list({file.resolve(): file for file in found}.values())  # a link adds no rows
    if not files or not files[0].is_file():
        raise ArtifactError("no score file", where=path, hint="a file, or a folder below <runs>/<study>/scores")
    read = [read_score_file(file) for file in files]
    if (count := len({name for file in read for name in file.codes("checkpoint")[1]})) > 1:
        problem = f"scores of {count} checkpoints"
        raise ArtifactError(problem, where=path, valid="one", hint="name one of the files in it")
    return gather(read)


def describe_checkpoint(answers: Answers) -> str:
    """The checkpoint's place in its study, e.g. `1b V1P0 seed 0 PT step 49591`."""
    cell = answers.cells.iloc[0]
    stage = f"{cell['stage']} {cell['recipe']}".strip()
    return f"{cell['scale']} {cell['mixture']} seed {cell['seed']} {stage} step {cell['step']}"


def pair_examples(a: Answers, b: Answers, normalisation: str) -> list[Pair]:
    """The benchmarks that both were scored on in the same way, in the order of Table 4, then by name.

    Raises ConfigError where there is none, or where the normalisation cannot be derived.
    """
    sides = [_right(answers, normalisation) for answers in (a, b)]
    common = sides[0].keys() & sides[1].keys()
    if not common:
        listed = "; ".join(", ".join(sorted(f"{s} {v}" for s, v in side)) or "none" for side in sides)
        raise ConfigError(f"no benchmark has {normalisation!r} scores of both with one prompt ({listed})")
    rank = {slug: place for place, slug in enumerate(BENCHMARKS)}
    pairs = []
    for key in sorted(common, key=lambda key: (rank.get(key[0], len(rank)), key)):
        first, second = (side[key] for side in sides)
        both = pd.concat([first, second], axis=1, join="inner").to_numpy()
        if not len(both):
            raise ConfigError(f"{key[0]}: the two were scored on different examples")
        pairs.append(Pair(key[0], both[:, 0], both[:, 1], len(first) + len(second) - 2 * len(both)))
    return pairs


def _right(answers: Answers, normalisation: str) -> dict[tuple[str, str], pd.Series]:
    """(benchmark, variant) -> 1 for each example whose answer is right, else 0; cells that lack it are left out."""
    found = {}
    values = answers.values["accuracy", normalisation].astype(float)
    cells = answers.cells
    for slug, variant, start, n in zip(cells["benchmark"], cells["variant"], answers.starts, cells["n"], strict=True):
        mine = slice(start, start + n)
        if not np.isnan(values[mine]).any():
            found[slug, variant] = pd.Series(values[mine], [answers.examples[i] for i in answers.example[mine]])
    return found


# ---------------------------------------------------------------------------------------------- table


def comparison_table(pairs: list[Pair], a: str, b: str) -> Table:
    """Rows for benchmarks, then for categories and for all, whose numbers are unweighted means of benchmarks.

    a, b: names of the checkpoints, for the title.
    """

    def rows() -> Iterator[Row]:
        for pair in pairs:
            yield _row(displays().get(pair.slug, pair.slug), [pair])
        for category in CATEGORIES:
            mine = [pair for pair in pairs if category_of().get(pair.slug) == category]
            if len(mine) > 1:
                yield _row(f"mean of {category}", mine)
        if len(pairs) > 1:
            yield _row(f"mean of {len(pairs)} benchmarks", pairs)

    shares = (Column(name, "{:.1f}".format) for name in ("A, %", "B, %"))
    counts = (Column(name, "{:,}".format) for name in ("only A right", "only B right", "left out"))
    extra = (*shares, *counts)
    return with_q_values(
        "compare", f"B less A in percentage points; A: {a}, B: {b}", "benchmark", rows(), extra, brief_extra=len(extra)
    )


def _row(name: str, pairs: list[Pair]) -> Row:
    a, b = [pair.a for pair in pairs], [pair.b for pair in pairs]
    gaps = [pair.b - pair.a for pair in pairs]
    every = np.concatenate(gaps)
    low, high = difference_interval(gaps)
    estimate = Estimate(
        value=100 * _mean(gaps),
        n=len(every),
        low=100 * low,
        high=100 * high,
        interval="percentile bootstrap over examples, paired",
        **_test(gaps),
    )
    left_out = sum(pair.left_out for pair in pairs)
    only_one = int((every < 0).sum()), int((every > 0).sum())
    return Row((name,), estimate, extra=(100 * _mean(a), 100 * _mean(b), *only_one, left_out or None))


def _mean(sides: list[np.ndarray]) -> float:
    """Mean over benchmarks of the means over their examples."""
    return float(np.mean([side.mean() for side in sides]))


def _test(gaps: list[np.ndarray]) -> dict[str, Any]:
    """The fields of `Estimate` that describe the test of one benchmark's difference, or of the mean of several."""
    one = len(gaps) == 1
    p, smallest = mcnemar(gaps[0]) if one else swap_test(gaps)
    disagreements = int(np.count_nonzero(np.concatenate(gaps)))
    counted = disagreements < COUNTED
    return {
        "points": "examples" if one else f"examples of {len(gaps)} benchmarks",
        "p": p,
        "null": "A and B swapped on each example they disagree on" + (" (exact)" if one else f" ({DRAWS:,} draws)"),
        "arrangements": 2**disagreements if counted else None,
        "smallest_p": smallest if counted else None,
    }


# ---------------------------------------------------------------------------------------------- statistics


def difference_interval(gaps: list[np.ndarray]) -> tuple[float, float]:
    """95 % percentile interval of the mean over benchmarks of mean gaps, examples drawn with replacement in each.

    gaps: right of B less right of A, -1, 0 or 1, [examples] each.
    """
    random = np.random.default_rng(SEED)
    total = np.zeros(DRAWS)
    for gap in gaps:
        # Only how often each of -1, 0 and 1 occurs matters: a draw is multinomial, which is cheaper than examples.
        shares = np.array([(gap == sign).mean() for sign in (-1, 0, 1)])
        counts = random.multinomial(len(gap), shares / shares.sum(), DRAWS)
        total += (counts[:, 2] - counts[:, 0]) / len(gap)
    low, high = np.quantile(total / len(gaps), (0.025, 0.975))
    return float(low), float(high)


def mcnemar(gap: np.ndarray) -> tuple[float, float]:
    """Exact two-sided p of McNemar's test (binomial over the disagreements), and the smallest possible."""
    wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
    if wins + losses == 0:
        return 1.0, 1.0
    return float(binomtest(wins, wins + losses).pvalue), 2.0 ** (1 - wins - losses)


def swap_test(gaps: list[np.ndarray]) -> tuple[float, float]:
    """Two-sided p of the mean over benchmarks when A and B are swapped at random on each example they disagree on."""
    random = np.random.default_rng(SEED)
    observed, null = 0.0, np.zeros(DRAWS)
    for gap in gaps:
        disagreements = int(np.abs(gap).sum())
        observed += gap.mean() / len(gaps)
        null += (2 * random.binomial(disagreements, 0.5, DRAWS) - disagreements) / len(gap) / len(gaps)
    extreme = int((np.abs(null) >= abs(observed) - TOLERANCE).sum())
    return (extreme + 1) / (DRAWS + 1), 1 / (DRAWS + 1)
