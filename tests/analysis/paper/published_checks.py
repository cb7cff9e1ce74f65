"""The paper's tables held against each other and against its text: sizes, budgets, noise, balance, mixtures.

In: the paper's tables (analysis/paper). Out: the numbers of docs/contradictions.md that are not in
analysis/paper/published.py. Why: each of them says which of two printed statements can be right.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from analysis.paper.numbers import CATEGORIES, SCALES, WEB_SOURCES, category_of, displays, frame, numbers
from analysis.paper.published import correlations, mean, published
from analysis.stats.estimates import Estimate, benjamini_hochberg
from configs.cost.model import parameters
from configs.load import load_train
from configs.schema import ModelShape

STAGES = ("PT", "SFT")
CODE_PERCENTS = ("25", "35", "45")
PARAMETERS = {"240M": 240e6, "1B": 1.0e9}
"""As Table 1 states them."""
CONFIGS = {"240M": "240m.yaml", "1B": "1b.yaml"}
DIGIT = 0.01 + 1e-9
"""Most by which two equal numbers can differ in tables of two decimals, each off by half a digit."""


def printed(table: str, row: str, scale: str) -> str:
    """One cell of Tables 1, 2a or 2b."""
    column = frame(table).set_index("hyperparameter")[scale]
    return str(column[row])


# ---------------------------------------------------------------------------------------------- Table 5


def category_means(metric: str, scale: str) -> dict[str, float]:
    """Mean of a column of Table 5 over the benchmarks of each category."""
    return {category: mean(metric, scale, category=category) for category in CATEGORIES}


def share_above_half(without: Collection[str] = ()) -> float:
    """Share of the benchmarks whose confidence at 240M has r > 0.5 (Finding 2)."""
    chosen = [r for name, r in correlations("confidence", "240M").items() if name not in without]
    return sum(r > 0.5 for r in chosen) / len(chosen)


# ---------------------------------------------------------------------------------------------- sizes and budgets


@dataclass(frozen=True)
class Budget:
    """Pretraining of one scale, as section 3.1 and as Table 2a have it."""

    text_tokens: int
    table_steps: int
    step_tokens: int
    """Batch times sequence length."""
    parameters: float

    @property
    def table_tokens(self) -> int:
        return self.table_steps * self.step_tokens

    @property
    def ratio(self) -> float:
        """Table over text."""
        return self.table_tokens / self.text_tokens

    @property
    def text_steps(self) -> int:
        """Whole steps of the table's batch in the text's tokens."""
        return self.text_tokens // self.step_tokens


def budget(scale: str) -> Budget:
    batch, length, steps = (
        int(printed("table2a", row, scale)) for row in ("batch_size_sequences", "sequence_length", "training_steps")
    )
    billions = printed("table2a", "tokens_as_stated_in_text", scale).removesuffix("B")
    return Budget(int(billions) * 10**9, steps, batch * length, PARAMETERS[scale])


def sequences_a_batch(scale: str) -> float:
    """Batch size with which Table 2a's steps make the text's tokens."""
    made = budget(scale)
    return made.text_tokens / made.table_steps / int(printed("table2a", "sequence_length", scale))


def sft_steps_per_epoch(scale: str, epochs: str = "epochs") -> float:
    """Table 2b; epochs: the row that holds them, the table's or `epochs_as_stated_in_text`."""
    return int(printed("table2b", "training_steps", scale)) / int(printed("table2b", epochs, scale))


class Reading(NamedTuple):
    """What Table 1 leaves open about a block."""

    mlp_matrices: int
    """3: gated."""
    expansion: int
    """Width of the MLP over the model dimension."""
    key_heads: int
    """8: multi-head; 1: multi-query attention."""


READINGS = tuple(Reading(m, e, k) for m, e in ((2, 8), (3, 8), (3, 4), (2, 4)) for k in (8, 1))


class Count(NamedTuple):
    """Parameters."""

    tied: int
    untied: int
    outside_embedding: int


def count(scale: str, reading: Reading) -> Count:
    """Parameters of Table 1 under a reading, with the norms of the project's own (`configs.cost.model`)."""
    shape = model_shape(scale)
    own = parameters(shape)
    attention = 2 * shape.layers * shape.hidden * shape.head_dim * (shape.heads + reading.key_heads)
    mlp = shape.layers * reading.mlp_matrices * shape.hidden * (reading.expansion * shape.hidden)
    changed = replace(own, attention=attention, mlp=mlp)
    return Count(changed.total_tied, changed.total_untied, changed.outside_embedding)


def model_shape(scale: str) -> ModelShape:
    """configs/240m.yaml or 1b.yaml, with the dimensions that Table 1 prints."""
    rows = {
        "layers": "number_of_layers",
        "hidden": "model_dimension",
        "heads": "number_of_heads",
        "head_dim": "per_head_dimension",
        "vocab": "vocabulary_size",
        "context_tokens": "context_length",
    }
    own = load_train(CONFIGS[scale]).model
    return own.model_copy(update={field: int(printed("table1", row, scale)) for field, row in rows.items()})


# ---------------------------------------------------------------------------------------------- noise


def standard_error_pp(benchmark: str) -> float:
    """Of an accuracy of one half over Table 4's examples, in percentage points: 100 sqrt(1/4 / n)."""
    sizes = frame("table4").set_index("benchmark")["test_examples"]
    return 50 / math.sqrt(int(sizes[benchmark]))


def category_error_pp(category: str) -> float:
    """Of the mean accuracy of one model over a category's benchmarks, in percentage points."""
    members = [displays()[slug] for slug, name in category_of().items() if name == category]
    return math.sqrt(sum(standard_error_pp(name) ** 2 for name in members)) / len(members)


def web_gaps() -> dict[tuple[str, str, str], float]:
    """Table 11: category, web source, other web source -> difference of their accuracies, in percentage points."""
    pairs = [(a, b) for i, a in enumerate(WEB_SOURCES) for b in WEB_SOURCES[:i]]
    return {(c, a, b): numbers()["11", a, c] - numbers()["11", b, c] for c in CATEGORIES for a, b in pairs}


def largest_web_gap_in_errors() -> float:
    """|gap| of Table 11 over its standard error, the largest: a cell is the mean of three models taken for independent.

    All models answer the same items, so that the true error of a difference is smaller where their answers agree;
    the table does not say by how much.
    """
    return max(abs(gap) / (category_error_pp(c) * math.sqrt(2 / 3)) for (c, _, _), gap in web_gaps().items())


# ---------------------------------------------------------------------------------------------- alignment


class Balance(NamedTuple):
    """One cell of Table 6 and the means of the cells that should make it up."""

    table6: float
    table8: float
    """Mean over the three web sources."""
    table9: float
    """Mean over the three code percents."""

    @property
    def agrees(self) -> bool:
        return max(self) - min(self) <= DIGIT


def balance() -> dict[tuple[str, str, str], Balance]:
    """Scale, stage, category -> Tables 6, 8 and 9. Averages over nine mixtures, three a group, must be equal."""

    def cells() -> Iterator[tuple[tuple[str, str, str], Balance]]:
        for scale in SCALES:
            for stage in STAGES:
                for c in CATEGORIES:
                    by_web = [numbers()["8", scale, stage, web, c] for web in WEB_SOURCES]
                    by_code = [numbers()["9", scale, stage, code, c] for code in CODE_PERCENTS]
                    whole = numbers()["6", scale, stage, c]
                    yield (scale, stage, c), Balance(whole, math.fsum(by_web) / 3, math.fsum(by_code) / 3)

    return dict(cells())


def education_effect(scale: str, stage: str, category: str) -> float:
    """FineWeb-Edu minus RefinedWeb in Table 8: what Table 7 prints for PT."""
    refined, education = (numbers()["8", scale, stage, web, category] for web in WEB_SOURCES[:2])
    return education - refined


def lowest_alignment(category: str) -> float:
    """Of Tables 6, 8 and 9."""
    return min(value for key, value in numbers().items() if key[0] in ("6", "8", "9") and key[-1] == category)


def persistence() -> dict[tuple[str, str], tuple[Estimate, float]]:
    """Table 10: scale, category -> estimate and Benjamini-Hochberg q over the eight."""
    found = {(s, c): published(numbers()["10", s, c]) for s in SCALES for c in CATEGORIES}
    q = [value for value in benjamini_hochberg([e.p for e in found.values()]) if value is not None]
    return {key: (estimate, value) for (key, estimate), value in zip(found.items(), q, strict=True)}


# ---------------------------------------------------------------------------------------------- mixtures


def shares() -> np.ndarray:
    """Web, code and curated percent of Table 3's mixtures, [mixtures, 3]."""
    return frame("table3")[["web_percent", "code_percent", "curated_percent"]].astype(float).to_numpy()


def share_directions() -> int:
    """Directions in which the shares vary; two would be free, since the three add up to 100."""
    return int(np.linalg.matrix_rank(shares() - shares().mean(axis=0)))


def crossings() -> tuple[int, int]:
    """Mixtures of Table 3, and those of every web source with every code source and every share."""
    table = frame("table3")
    return len(table), math.prod(table[key].nunique() for key in ("web_source", "code_source", "code_percent"))


# ---------------------------------------------------------------------------------------------- BETR


def betr_percent(flops: float) -> float:
    """The share of documents to keep, F = 4e-5 C^0.25 (BETR's summary of results), read as per cent."""
    return 4e-5 * flops**0.25


def betr_flops(percent: float) -> float:
    """The compute at which `betr_percent` reaches a share."""
    return (percent / 4e-5) ** 4
