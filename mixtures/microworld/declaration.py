"""The declared truth: which mixture must help which benchmark, computed from `declaration.yaml` before any training.

dose(mixture, benchmark) = sum over sources of weight(source) x share of its documents on the benchmark's relation.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from configs.load import load_mixture, read_yaml
from mixtures.microworld.world import BY_BENCHMARK, RELATIONS

FILE = Path(__file__).with_name("declaration.yaml")


@functools.cache
def shares() -> dict[str, dict[str, float]]:
    """source -> relation -> share of the source's documents; the rest is filler."""
    declared = read_yaml(FILE)
    assert tuple(declared["relations"]) == tuple(RELATIONS), "both YAML files have the same order"
    table = {s: dict(zip(declared["relations"], row, strict=True)) for s, row in declared["shares"].items()}
    assert all(sum(row.values()) <= 1.0 for row in table.values()), "shares of a source sum to at most 1"
    return table


@functools.cache
def learnable() -> tuple[str, ...]:
    """Slugs of the benchmarks that a miniature model should learn."""
    return tuple(read_yaml(FILE)["learnable"])


def dose(mixture: str, benchmark: str) -> float:
    """Share of the mixture's documents that state facts the benchmark asks for (in [0, 1])."""
    relation = BY_BENCHMARK[benchmark].name
    return sum(weight * shares()[source][relation] for source, weight in load_mixture(mixture).weights.items())


def declared(mixtures: tuple[str, ...]) -> dict[str, Any]:
    """What the report compares with the measured order: `{"learnable": {slug: {mixture: dose}}}`."""
    return {"learnable": {slug: {m: round(dose(m, slug), 6) for m in mixtures} for slug in learnable()}}
