"""A study of score files made from known truth, as large as the paper's if need be: 36 checkpoints, 20 benchmarks.

Every mixture has an ability on every benchmark, scale and stage; the abilities after PT and after SFT correlate over
the mixtures exactly as `Truth.r` says. An example is answered rightly the more often the larger the ability; some are
hard for all checkpoints alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from score_rows import CATEGORY, CHOICES, FORCED_SCHEMA

from analysis.paper.numbers import frame
from configs.load import BENCHMARKS, PAPER_MIXTURES

SCALES = ("240m", "1b")
STAGES = ("PT", "SFT")
SPREAD = 0.3
"""Standard deviation of the abilities over mixtures, in nats of the true candidate's advantage."""


@dataclass(frozen=True)
class Truth:
    ability: dict[tuple[str, str], np.ndarray]
    """(scale, stage) -> float64 [mixtures, benchmarks]"""
    r: dict[str, np.ndarray]
    """scale -> correlation of PT with SFT over mixtures, [benchmarks]"""


def paper_sizes() -> dict[str, int]:
    """Examples of each benchmark, Table 4."""
    return dict(zip(BENCHMARKS, frame("table4")["test_examples"].astype(int), strict=True))


def correlated(random: np.random.Generator, r: np.ndarray, mixtures: int) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices [mixtures, len(r)] of columns with mean 0 and variance 1 whose correlations are exactly r."""
    first, second = random.normal(0, 1, (2, mixtures, len(r)))
    first = first - first.mean(axis=0)
    first /= first.std(axis=0)
    second = second - second.mean(axis=0)
    second -= first * (first * second).mean(axis=0)
    second /= second.std(axis=0)
    return first, r * first + np.sqrt(1 - r**2) * second


def write_simulated(runs: Path, study: str = "simulated", sizes: dict[str, int] | None = None, seed: int = 0) -> Truth:
    """sizes: examples of each benchmark; None: the paper's."""
    random = np.random.default_rng(seed)
    sizes = sizes or paper_sizes()
    slugs = tuple(sizes)
    ability, r = {}, {}
    for scale in SCALES:
        r[scale] = random.uniform(-0.5, 0.98, len(slugs))
        sides = correlated(random, r[scale], len(PAPER_MIXTURES))
        for stage, side in zip(STAGES, sides, strict=True):
            ability[scale, stage] = 0.8 + SPREAD * side
    asked = _Examples(random, sizes)
    for scale in SCALES:
        for m, mixture in enumerate(PAPER_MIXTURES):
            for stage in STAGES:
                table = asked.answered(random, ability[scale, stage][m], study, scale, mixture, stage)
                path = runs / study / "scores" / scale / mixture / f"{stage}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, path)
    return Truth(ability, r)


class _Examples:
    """What all checkpoints are asked."""

    def __init__(self, random: np.random.Generator, sizes: dict[str, int]) -> None:
        self.slugs = tuple(sizes)
        self.benchmark = np.repeat(np.arange(len(sizes)), list(sizes.values()))
        self.ids = pa.array([f"validation/{i}" for n in sizes.values() for i in range(n)]).dictionary_encode()
        candidates = np.array([CHOICES[slug] for slug in self.slugs])[self.benchmark]
        self.offsets = np.concatenate([[0], np.cumsum(candidates)]).astype(np.int32)
        self.gold = random.integers(0, candidates).astype(np.int32)
        self.hard = random.normal(0, 1.0, len(candidates))
        total = int(self.offsets[-1])
        self.chars = random.integers(3, 40, total).astype(np.int32)
        self.alone = -random.exponential(10, total) - 1

    def answered(
        self, random: np.random.Generator, ability: np.ndarray, study: str, scale: str, mixture: str, stage: str
    ) -> pa.Table:
        rows = len(self.gold)
        logprob = -20 + random.normal(0, 1.0, len(self.chars))
        logprob[self.offsets[:-1] + self.gold] += ability[self.benchmark] - self.hard

        def same(text: str) -> pa.DictionaryArray:
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))

        def lists(values: np.ndarray) -> pa.ListArray:
            return pa.ListArray.from_arrays(pa.array(self.offsets), pa.array(values))

        def by_benchmark(names: list[str]) -> pa.DictionaryArray:
            return pa.array([names[b] for b in self.benchmark.tolist()]).dictionary_encode()

        columns = {
            "study": same(study),
            "scale": same(scale),
            "mixture": same(mixture),
            "stage": same(stage),
            "recipe": same("" if stage == "PT" else "table2b"),
            "benchmark": by_benchmark(list(self.slugs)),
            "category": by_benchmark([CATEGORY[slug] for slug in self.slugs]),
            "variant": same("lm_eval/0shot"),
            "example_id": self.ids,
            "checkpoint": same(f"{scale}-{mixture}-{stage}"),
            "seed": pa.array(np.zeros(rows, np.int32)),
            "step": pa.array(np.full(rows, 100)),
            "tokens": pa.array(np.full(rows, 12_000_000_000 if scale == "240m" else 52_000_000_000)),
            "gold": pa.array(self.gold),
            "logprob_sum": lists(logprob),
            "num_tokens": lists(np.maximum(1, self.chars // 4).astype(np.int32)),
            "num_chars": lists(self.chars),
            "num_bytes": lists(self.chars),
            "logprob_unconditional": lists(self.alone),
            "truncated": pa.array(np.zeros(rows, bool)),
        }
        return pa.table(columns, schema=FORCED_SCHEMA).replace_schema_metadata({"schema_version": "1"})
