"""What a call of score.py ends with: accuracy of its checkpoints on each benchmark, beside chance.

In: the score files of some checkpoints. Out: a table for each of a few checkpoints, or one line for each of many. The
same numbers, and all others, come from `python -m analysis.tables`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from configs.load import BENCHMARKS, load_benchmark
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.harnesses.lm_eval_results import ACC_NORM, mean_and_stderr
from ray_eval.results import IDENTITY, count_not_finite, metadata_of, open_scores, padded

FEW = 4
"""Checkpoints that get a table each."""
CLEAR = 2.0
"""Standard errors by which an accuracy that is called above chance exceeds it."""


@dataclass(frozen=True)
class Line:
    """One checkpoint on one benchmark, asked in one way."""

    benchmark: str
    variant: str
    n: int
    accuracy: float
    stderr: float
    """Sample standard deviation over the examples / sqrt(n); NaN for one example."""
    confidence: float
    """Mean over the examples: softmax over the candidates' summed log-probabilities, at the chosen one."""
    chance: float
    """Uniform guessing, or always giving the commonest answer where the answers are the same words in every row."""
    per_character: float | None
    """Accuracy by log-probability per character, of the benchmarks for which lm-evaluation-harness reports it."""

    @property
    def above_chance(self) -> bool:
        return self.accuracy - CLEAR * self.stderr > self.chance


def lines(table: pa.Table) -> list[Line]:
    """A line for each benchmark and variant of a score file, whose rows stand together."""
    codes = [_numbers(table[name].combine_chunks().indices) for name in ("benchmark", "variant")]
    changes = np.flatnonzero(sum(np.diff(code) != 0 for code in codes))
    bounds = [0, *(changes + 1).tolist(), len(table)]
    return [_line(table.slice(start, stop - start)) for start, stop in itertools.pairwise(bounds)]


def _line(rows: pa.Table) -> Line:
    slug, variant = rows["benchmark"][0].as_py(), rows["variant"][0].as_py()
    logprob, gold = padded(rows, "logprob_sum", -np.inf), _numbers(rows["gold"].combine_chunks())
    accuracy, stderr = mean_and_stderr(logprob.argmax(axis=1) == gold)  # ties: the first, as everywhere
    confidence = 1 / np.exp(logprob - logprob.max(axis=1, keepdims=True)).sum(axis=1)
    uniform = float((1 / np.isfinite(logprob).sum(axis=1)).mean())
    same_words = slug in BENCHMARKS and load_benchmark(slug).fixed_in(variant.split("/")[0])
    majority = float(np.bincount(gold).max() / len(gold)) if same_words else 0.0
    per_character = None
    if slug in ACC_NORM:
        per_character = float(((logprob / padded(rows, "num_chars", 1.0)).argmax(axis=1) == gold).mean())
    return Line(
        benchmark=slug,
        variant=variant,
        n=len(gold),
        accuracy=accuracy,
        stderr=stderr,
        confidence=float(confidence.mean()),
        chance=max(uniform, majority),
        per_character=per_character,
    )


def _numbers(array: pa.Array) -> np.ndarray:
    """Numbers of an array without nulls: pyarrow's own conversion imports pandas, which is slow."""
    return np.from_dlpack(array)


def print_summary(checkpoints: Sequence[Checkpoint], *, full: bool = False) -> None:
    """Print the accuracies of those checkpoints that have a score file; `full`: a table for each, however many."""
    console = Console(highlight=False)
    if not checkpoints:
        return
    if full or len(checkpoints) <= FEW:
        for name, of_checkpoint in _scored(checkpoints):
            console.print("", _table(name, of_checkpoint), sep="\n")
    else:
        console.print("", _overview(_scored(checkpoints)), sep="\n")


def _scored(checkpoints: Sequence[Checkpoint]) -> Iterator[tuple[str, list[Line]]]:
    for checkpoint in checkpoints:
        if checkpoint.score_file.is_file():
            table = open_scores(checkpoint.score_file)
            found, wanted = metadata_of(table), {"checkpoint": checkpoint.checkpoint, **checkpoint.facts}
            # What an earlier call left of another model, or of this one with NaN, is not this call's result.
            if all(found.get(key) == wanted.get(key) for key in IDENTITY) and not count_not_finite(table):
                yield _name(checkpoint), lines(table)


def _name(checkpoint: Checkpoint) -> str:
    known = checkpoint.columns
    if not known["step"]:  # nobody said how it was trained
        return str(known["scale"]) + ("" if known["mixture"] == "none" else f"@{known['mixture']}")
    stage = f"{known['stage']} {known['recipe']}".strip()
    return f"{known['scale']} {known['mixture']} seed {known['seed']} {stage} step {known['step']:,}"


def _table(name: str, of_checkpoint: Sequence[Line]) -> Table:
    asked = sorted({line.variant for line in of_checkpoint})
    table = Table(title=f"{name}  ({', '.join(asked)})", title_justify="left", box=None, pad_edge=False)
    table.add_column("benchmark")
    for heading in ("accuracy", "±", "chance", "per char", "confidence", "n"):
        table.add_column(heading, justify="right")
    for line in of_checkpoint:
        label = line.benchmark if len(asked) == 1 else f"{line.benchmark} ({line.variant})"
        per_character = "" if line.per_character is None else f"{line.per_character:.3f}"
        stderr = "" if np.isnan(line.stderr) else f"{line.stderr:.3f}"
        numbers = f"{line.accuracy:.3f}", stderr, f"{line.chance:.3f}", per_character, f"{line.confidence:.3f}"
        table.add_row(label, *numbers, f"{line.n:,}", style="bold" if line.above_chance else None)
    if len(of_checkpoint) > 1:
        accuracy, chance, confidence, above = _means(of_checkpoint)
        table.add_section()
        table.add_row("mean", accuracy, "", chance, "", confidence, "", style="italic")
        table.caption = f"{above} above chance by more than {CLEAR:g} standard errors"
        table.caption_justify = "left"
    return table


def _means(of_checkpoint: Sequence[Line]) -> tuple[str, str, str, str]:
    """Means of accuracy, chance and confidence over benchmarks, and how many are above chance."""
    keys = ("accuracy", "chance", "confidence")
    accuracy, chance, confidence = (f"{np.mean([getattr(line, key) for line in of_checkpoint]):.3f}" for key in keys)
    return accuracy, chance, confidence, f"{sum(line.above_chance for line in of_checkpoint)} of {len(of_checkpoint)}"


def _overview(scored: Iterator[tuple[str, list[Line]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for heading in ("accuracy", "chance", "confidence", "above chance"):
        table.add_column(heading, justify="right")
    for name, of_checkpoint in scored:
        table.add_row(name, *_means(of_checkpoint))
    table.caption = (
        f"means over benchmarks; above chance by more than {CLEAR:g} standard errors; --table shows them all"
    )
    table.caption_justify = "left"
    return table
