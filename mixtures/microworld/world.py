"""The facts of the microworld: nine relations, each a table from invented subjects to one of a few values.

In: relations.yaml. Out: `RELATIONS`, the same on every machine. Names are invented so that no fact can be confused with
one about the real world; the sentences around them are English.
"""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path

from configs.load import read_yaml, validate
from configs.schema import Model

FILE = Path(__file__).with_name("relations.yaml")
SUBJECTS_PER_RELATION = 16
PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry")


class Relation(Model):
    """One kind of fact: `{s}` stands for the subject and `{v}` for its value."""

    name: str
    benchmark: str
    """The benchmark that asks for these facts."""
    kind: str
    """What a subject is, in one word."""
    values: tuple[str, ...]
    clauses: tuple[str, ...]
    """Statements of a fact in the sources; none is used by a benchmark."""
    questions: tuple[str, ...]
    """Questions for a fact in the sources; none is used by a benchmark."""
    ask: str
    """The question a benchmark puts; no source has it."""
    tell: str
    """The statement a benchmark makes; no source has it."""
    reply: str = "{v}"
    """The answer to a question in the sources."""

    @cached_property
    def facts(self) -> dict[str, str]:
        """Subject -> value; every value is used equally often (to within one)."""
        rng = random.Random(f"microworld/{self.name}")
        # Dealt, not drawn: where each value is right equally often, always guessing one of them gains nothing.
        values = [self.values[i % len(self.values)] for i in range(SUBJECTS_PER_RELATION)]
        rng.shuffle(values)
        return dict(zip(_names(self.name), values, strict=True))

    def others(self, value: str) -> list[str]:
        """The values a wrong candidate may have."""
        return [v for v in self.values if v != value]


def _all_names() -> list[str]:
    """Distinct words of two syllables, in a fixed random order; sharing syllables keeps a small vocabulary enough."""
    heads = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi")
    tails = ("bek", "dor", "gam", "kil", "lun", "mab", "nid", "pon", "rel", "sut", "tov", "zik")
    words = [head + tail for head in heads for tail in tails]
    random.Random("microworld/names").shuffle(words)
    return words


def _names(relation: str) -> list[str]:
    start = SUBJECTS_PER_RELATION * list(RELATIONS).index(relation)
    return _all_names()[start : start + SUBJECTS_PER_RELATION]


RELATIONS = {name: validate(Relation, {"name": name, **entry}, FILE) for name, entry in read_yaml(FILE).items()}
BY_BENCHMARK = {r.benchmark: r for r in RELATIONS.values()}
