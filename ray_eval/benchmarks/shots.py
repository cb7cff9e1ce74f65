"""k-shot: solved questions of the train split in front of each question.

The same questions for every row of a benchmark, in the same order: their tokens are then shared by the whole
benchmark, and no row's score depends on which others were scored. lm-evaluation-harness draws anew for every row.
A row never sees itself: where a train row reads like the row that is scored, the next one takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError
from configs.schema import BenchmarkConfig
from mixtures.sources.benchmark_rows import read_train_rows
from ray_eval.benchmarks.templates import Question, Template

DELIMITER = " "
"""Between a context and its candidate."""
BETWEEN = "\n\n"
"""Between one solved question and the next."""

Turns = tuple[str, ...]
"""Messages of user and assistant in turn; the last is the user's."""


class Shots:
    """`count` solved questions for any row; `Shots(spec, root, template, count, seed).of(question)`.

    Raises DataError where no train split is at hand, or too few distinct rows.
    """

    def __init__(self, spec: BenchmarkConfig, root: Path | None, template: Template, count: int, seed: int) -> None:
        self._count = count
        self._pool: tuple[Question, ...] = ()
        if not count:
            return
        wanted = count + 1  # one to spare, for the row that is among them
        rows = read_train_rows(root, spec, 2 * wanted, seed)
        drawn = [template(row, f"{rows.where}, row {n}") for n, row in zip(rows.numbers, rows.table, strict=True)]
        self._pool = tuple(dict.fromkeys(drawn))[:wanted]
        if len(self._pool) < wanted:
            raise DataError(
                f"{len(self._pool)} different rows, too few for {count} shots",
                where=rows.where,
                valid=f"{wanted} rows, so that one can stand in where the row that is scored is among them",
                hint="fewer shots",
            )

    def of(self, question: Question) -> Sequence[Question]:
        """The shots of a row, never the row itself."""
        return [shot for shot in self._pool if not _same(shot, question)][: self._count]


def _same(shot: Question, question: Question) -> bool:
    return shot.contexts == question.contexts and shot.candidates == question.candidates


def as_text(context: str, shots: Sequence[Question]) -> str:
    """Join context and shots as lm-evaluation-harness does: `<context> <answer>`, a blank line, and so on."""
    solved = (f"{shot.context(shot.gold)}{DELIMITER}{shot.candidates[shot.gold]}{BETWEEN}" for shot in shots)
    return "".join((*solved, context))


def as_turns(context: str, shots: Sequence[Question]) -> Turns:
    """Join context and shots as a conversation: each shot is a user's message and the assistant's answer."""
    solved = (text for shot in shots for text in (shot.context(shot.gold), shot.candidates[shot.gold]))
    return (*solved, context)
