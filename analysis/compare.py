"""Two checkpoints on the same examples: which is better, and is the difference more than chance?

In: two score files, or folders with one checkpoint's. Out: a table with a row for each benchmark, category and the mean
of all: accuracy of both, the difference B - A, its interval, and a p-value with its null. Both answered the same
examples, so everything is paired: an example that both get right or both get wrong says nothing about the difference.

    python -m analysis.compare runs/mini/scores/mini_m/V1P0/seed0/pt runs/mini/scores/mini_m/V2P0/seed0/pt
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ArtifactError, ConfigError, user_errors
from configs.metrics import NORMALISATIONS

if TYPE_CHECKING:
    import numpy as np

    from analysis.rendering.table import Row, Table
    from analysis.scores.answers import Answers

EXAMPLES = """examples:
  python -m analysis.compare A.parquet B.parquet
  python -m analysis.compare runs/mini/scores/mini_m/V1P0/seed0/pt runs/mini/scores/mini_m/V1P0/seed0/sft-mini
  python -m analysis.compare A.parquet B.parquet --normalisation char --format csv
"""
DRAWS = 10_000
SEED = 20_240
COUNTED = 63
"""Disagreements, from which on the ways to swap them are too many to be worth telling."""


@dataclass(frozen=True)
class Pair:
    """Both checkpoints on the examples of a benchmark that both answered."""

    slug: str
    a: np.ndarray
    """float64 [examples]: 1 where the answer is right."""
    b: np.ndarray
    alone: int
    """Examples that only one of them answered; left out."""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.compare",
        description="Compare two checkpoints example by example: difference of accuracy, interval, exact McNemar p.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, help="score file, or a folder that holds those of one checkpoint")
    parser.add_argument("b", type=Path, help="the other; differences are B - A")
    parser.add_argument(
        "--normalisation", choices=[name for name in NORMALISATIONS if name], default="sum", help="default: sum"
    )
    parser.add_argument("--format", choices=("text", "csv", "md", "tex"), default="text", help="default: text")
    args = parser.parse_args(argv)
    from analysis.rendering.writers import FORMS

    a, b = read_checkpoint(args.a), read_checkpoint(args.b)
    table = comparison(paired(a, b, args.normalisation), *map(named, (a, b)))
    print(FORMS[args.format](table).rstrip("\n"))


def named(answers: Answers) -> str:
    """Which checkpoint it is, e.g. `1b V1P0 seed 0 PT step 49591`."""
    cell = answers.cells.iloc[0]
    stage = f"{cell['stage']} {cell['recipe']}".strip()
    return f"{cell['scale']} {cell['mixture']} seed {cell['seed']} {stage} step {cell['step']}"


def read_checkpoint(path: Path) -> Answers:
    """Raises ArtifactError where there is no score file, a damaged one, or more than one checkpoint."""
    from analysis.scores.gather import gather
    from analysis.scores.score_files import read_score_file

    found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    files = list({file.resolve(): file for file in found}.values())  # a link adds no rows
    if not files or not files[0].is_file():
        raise ArtifactError("no score file", where=path, hint="a file, or a folder below <runs>/<study>/scores")
    read = [read_score_file(file) for file in files]
    if (count := len({name for file in read for name in file.codes("checkpoint")[1]})) > 1:
        problem = f"scores of {count} checkpoints"
        raise ArtifactError(problem, where=path, valid="one", hint="name one of the files in it")
    return gather(read)


def paired(a: Answers, b: Answers, normalisation: str) -> list[Pair]:
    """The benchmarks that both were scored on in the same way, in the order of Table 4, then by name.

    Raises ConfigError where there is none, or where the normalisation cannot be derived.
    """
    from configs.load import BENCHMARKS

    sides = [_right(answers, normalisation) for answers in (a, b)]
    common = sides[0].keys() & sides[1].keys()
    if not common:
        listed = "; ".join(", ".join(sorted(f"{s} {v}" for s, v in side)) or "none" for side in sides)
        raise ConfigError(f"no benchmark has {normalisation!r} scores of both with one prompt ({listed})")
    known = list(BENCHMARKS)
    order = sorted(common, key=lambda key: (known.index(key[0]) if key[0] in known else len(known), key))
    pairs = []
    for slug, variant in order:
        first, second = (side[slug, variant] for side in sides)
        same = [name for name in first if name in second]
        if not same:
            raise ConfigError(f"{slug}: the two were scored on different examples")
        left_out = len(first) + len(second) - 2 * len(same)
        pairs.append(Pair(slug, _vector(first, same), _vector(second, same), left_out))
    return pairs


def _right(answers: Answers, normalisation: str) -> dict[tuple[str, str], dict[str, float]]:
    """(benchmark, variant) -> example -> 1 where the answer is right; without what cannot be derived."""
    import numpy as np

    found = {}
    values = answers.values["accuracy", normalisation]
    cells = answers.cells
    for slug, variant, start, n in zip(cells["benchmark"], cells["variant"], answers.starts, cells["n"], strict=True):
        mine = values[start : start + n]
        if not np.isnan(mine).any():
            names = (answers.examples[i] for i in answers.example[start : start + n])
            found[slug, variant] = dict(zip(names, mine.tolist(), strict=True))
    return found


def _vector(right: dict[str, float], names: list[str]) -> np.ndarray:
    import numpy as np

    return np.array([right[name] for name in names])


# ---------------------------------------------------------------------------------------------- statistics


def comparison(pairs: list[Pair], a: str, b: str) -> Table:
    """Rows for benchmarks, then for categories and for all, whose numbers are unweighted means of benchmarks."""
    from analysis.paper.numbers import CATEGORIES, category_of, displays
    from analysis.rendering.table import Column, with_q_values

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
    import numpy as np

    from analysis.rendering.table import Row
    from analysis.stats.estimates import Estimate

    gaps = [pair.b - pair.a for pair in pairs]
    value = float(np.mean([gap.mean() for gap in gaps]))
    low, high = difference_interval(gaps)
    alone = len(pairs) == 1
    p, smallest = mcnemar(gaps[0]) if alone else swapped(gaps)
    discordant = int(sum(np.abs(gap).sum() for gap in gaps))
    few = discordant < COUNTED
    estimate = Estimate(
        value=100 * value,
        n=sum(map(len, gaps)),
        points="examples" if alone else f"examples of {len(pairs)} benchmarks",
        low=100 * low,
        high=100 * high,
        interval="percentile bootstrap over examples, paired",
        p=p,
        null="A and B swapped on each example they disagree on" + (" (exact)" if alone else f" ({DRAWS:,} draws)"),
        arrangements=2**discordant if few else None,
        smallest_p=smallest if few else None,
    )
    accuracy = (
        100 * np.mean([side.mean() for side in sides]) for sides in ([p.a for p in pairs], [p.b for p in pairs])
    )
    wins = (sum(int((gap == sign).sum()) for gap in gaps) for sign in (-1, 1))
    left_out = sum(pair.alone for pair in pairs)
    return Row((name,), estimate, extra=(*accuracy, *wins, left_out or None))


def difference_interval(gaps: list[np.ndarray], draws: int = DRAWS) -> tuple[float, float]:
    """95 % percentile interval of the mean over benchmarks of mean gaps, examples drawn with replacement in each.

    gaps: right of B less right of A, -1, 0 or 1, [examples] each. Only how often each occurs matters, so that a draw is
    multinomial, not a draw of examples.
    """
    import numpy as np

    random = np.random.default_rng(SEED)
    total = np.zeros(draws)
    for gap in gaps:
        shares = np.array([(gap == sign).mean() for sign in (-1, 0, 1)])
        counts = random.multinomial(len(gap), shares / shares.sum(), draws)
        total += (counts[:, 2] - counts[:, 0]) / len(gap)
    low, high = np.quantile(total / len(gaps), (0.025, 0.975))
    return float(low), float(high)


def mcnemar(gap: np.ndarray) -> tuple[float, float]:
    """Exact two-sided p of McNemar's test (binomial over the disagreements), and the smallest possible."""
    from scipy.stats import binomtest

    wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
    if wins + losses == 0:
        return 1.0, 1.0
    return float(binomtest(wins, wins + losses).pvalue), 2.0 ** (1 - wins - losses)


def swapped(gaps: list[np.ndarray], draws: int = DRAWS) -> tuple[float, float]:
    """Two-sided p of the mean over benchmarks when A and B are swapped at random on each example they disagree on."""
    import numpy as np

    from analysis.stats.resampling import TOLERANCE

    random = np.random.default_rng(SEED)
    observed, null = 0.0, np.zeros(draws)
    for gap in gaps:
        disagreements = int(np.abs(gap).sum())
        observed += gap.mean() / len(gaps)
        null += (2 * random.binomial(disagreements, 0.5, draws) - disagreements) / len(gap) / len(gaps)
    extreme = int((np.abs(null) >= abs(observed) - TOLERANCE).sum())
    return (extreme + 1) / (draws + 1), 1 / (draws + 1)


if __name__ == "__main__":
    main()
