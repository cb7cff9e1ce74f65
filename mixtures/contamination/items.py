"""What to look for: the texts of every evaluation row of a benchmark.

Each text column counts on its own (a passage, a question, each candidate), because a corpus or a prompt template puts
other words between them; so no n-gram bridges two columns. The one exception is the item as its author would tell it:
the question followed by its right answer, or the sentence with its blank filled ("reading", for the ten benchmarks
whose candidates are text). GPT-3 and PaLM look for question and right answer too.

A touched passage is background that the model is given anyway, and a short question may be a common phrase; hits name
the field, so that each can be told from the rest.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.schema import BenchmarkConfig
from mixtures.contamination.index import Index
from mixtures.contamination.words import Places
from mixtures.sources.benchmark_rows import read_rows

MARKUP = re.compile(r"\[(?:header|title|step|substeps)\]")
"""HellaSwag's marks of WikiHow's layout; the articles do not have them."""
BLANK = re.compile(r"(?<!\w)_+(?!\w)")
"""The blank of a sentence to be completed."""


class Telling(NamedTuple):
    """Columns whose texts, in this order, lead to the answer; columns of the candidates, in the order of the labels."""

    question: tuple[str, ...]
    candidates: tuple[str, ...]


TELLINGS = {
    "hellaswag": Telling(("ctx_a", "ctx_b"), ("endings",)),
    "piqa": Telling(("goal",), ("sol1", "sol2")),
    "copa": Telling(("premise",), ("choice1", "choice2")),
    "siqa": Telling(("context", "question"), ("answerA", "answerB", "answerC")),
    "commonsense_qa": Telling(("question",), ("choices",)),
    "winogrande": Telling(("sentence",), ("option1", "option2")),
    "arc_challenge": Telling(("question",), ("choices",)),
    "arc_easy": Telling(("question",), ("choices",)),
    "sciq": Telling(("question",), ("correct_answer",)),
    "openbookqa": Telling(("question_stem",), ("choices",)),
}


@dataclass(frozen=True)
class Item:
    """One evaluation row; `example_id` names it as score files do."""

    benchmark: str
    example_id: str
    texts: dict[str, str]
    """Column (`endings[2]` inside a list) -> its text; `reading` -> question and right answer."""


def read_items(spec: BenchmarkConfig, root: Path | None) -> Iterator[Item]:
    """Every row of the benchmark's evaluation split, in order; `root` holds benchmarks/, None reads the Hub.

    Raises DataError as `read_rows`.
    """
    rows = read_rows(root, spec)
    for number, row in zip(rows.numbers, rows.table, strict=True):
        texts = dict(pair for column in spec.columns for pair in _texts(column, row[column]))
        if reading := _reading(spec, row):
            texts["reading"] = reading
        yield Item(spec.slug, f"{rows.split}/{number}", texts)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a value, with its place; a list of choices counts without its letters."""
    if isinstance(value, str):
        yield name, _plain(value)
    elif isinstance(value, Mapping):
        yield from _texts(name, value.get("text"))
    elif isinstance(value, list):
        for number, element in enumerate(value):
            yield from _texts(f"{name}[{number}]", element)


def _plain(text: str) -> str:
    """`text` as it was before it became benchmark data."""
    return MARKUP.sub(" ", text).replace(" n't", "n't")  # "did n't" is how a treebank splits "didn't"


def _reading(spec: BenchmarkConfig, row: Mapping[str, Any]) -> str | None:
    """Question and right answer as one text.

    None where the candidates are no texts of the row, or its label is unusable (scoring refuses such a row).
    """
    if spec.slug not in TELLINGS:
        return None
    telling = TELLINGS[spec.slug]
    question = " ".join(row[column] or "" for column in telling.question)
    answer = _answer(spec, telling, row)
    if answer is None:
        return None
    filled, blanks = BLANK.subn(lambda _: answer, question)
    return _plain(filled if blanks else f"{question} {answer}")


def _answer(spec: BenchmarkConfig, telling: Telling, row: Mapping[str, Any]) -> str | None:
    if spec.label in telling.candidates:  # the label is the answer itself
        return row[spec.label]
    value = row[telling.candidates[0]]
    labels: Any = spec.labels
    if isinstance(value, Mapping):
        labels, value = labels or value["label"], value["text"]
    candidates = value if isinstance(value, list) else [row[column] for column in telling.candidates]
    return dict(zip(labels, candidates, strict=False)).get(row[spec.label])


@dataclass(frozen=True)
class Catalogue:
    """All items, their texts one after another, and where each text is in the index."""

    items: tuple[Item, ...]
    item_of: Places
    """Number of the item that text f belongs to; [texts]."""
    fields: tuple[str, ...]
    text_of: Places
    """Text of the index that text f is; -1 where it is too short to assess; [texts]."""

    @classmethod
    def build(cls, items: Sequence[Item], ngram: int, min_words: int) -> tuple[Catalogue, Index]:
        pairs = [(number, field) for number, item in enumerate(items) for field in item.texts]
        texts = [text for item in items for text in item.texts.values()]
        index, text_of = Index.build(texts, ngram, min_words)
        item_of = np.array([number for number, _ in pairs], dtype=np.int64)
        return cls(tuple(items), item_of, tuple(field for _, field in pairs), text_of), index

    def best(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Share of each item: the largest of its texts'. NaN where none is assessable; float64 [items]."""
        found = np.full(len(self.items), np.nan)
        known = self.text_of >= 0
        np.fmax.at(found, self.item_of[known], shares[self.text_of[known]])
        return found

    def benchmarks(self) -> dict[str, Places]:
        """Benchmark -> numbers of its items."""
        numbers = defaultdict(list)
        for number, item in enumerate(self.items):
            numbers[item.benchmark].append(number)
        return {slug: np.array(found) for slug, found in numbers.items()}
