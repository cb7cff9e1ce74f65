"""What the miniature study measured over three seeds (docs/mini_seeds.csv), against what was declared beforehand.

The table is the accuracy of every final checkpoint of configs/studies/mini_seeds.yaml, run once; made by
`python study.py collect mini_seeds` and kept to scale, stage, mixture, seed, benchmark, accuracy, chance, n.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from configs.layout import PROJECT_ROOT
from configs.load import BENCHMARKS, PAPER_MIXTURES
from mixtures.microworld.declaration import dose, learnable

SCALES = ("mini_s", "mini_m")
CLEAR = 3.0
"""Standard errors."""


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    return pd.read_csv(PROJECT_ROOT / "docs" / "mini_seeds.csv")


def test_no_cell_is_missing(measured: pd.DataFrame) -> None:
    assert len(measured) == 2 * 2 * 9 * 3 * 20
    keys = measured[["scale", "stage", "mixture", "seed", "benchmark"]]
    assert not keys.duplicated().any() and not measured.isna().any().any()
    assert set(measured.benchmark) == set(BENCHMARKS) and set(measured.mixture) == set(PAPER_MIXTURES)


@pytest.mark.parametrize("scale", SCALES)
def test_learnable_benchmarks_are_above_chance_for_the_mixture_declared_best(
    measured: pd.DataFrame, scale: str
) -> None:
    """At least six, by more than three binomial standard errors of one seed's cell, in the mean of the seeds."""
    clear = []
    for slug in learnable():
        best = max(PAPER_MIXTURES, key=lambda m: dose(m, slug))
        pt = measured[(measured.scale == scale) & (measured.stage == "PT")]
        cells = pt[(pt.benchmark == slug) & (pt.mixture == best)]
        accuracy, chance, n = cells.accuracy.mean(), cells.chance.mean(), cells.n.iloc[0]
        error = np.sqrt(accuracy * (1 - accuracy) / n)
        if accuracy - chance > CLEAR * error:
            clear.append(slug)
    assert len(clear) >= 6, clear


@pytest.mark.parametrize("scale", SCALES)
def test_the_order_of_mixtures_is_the_declared_one(measured: pd.DataFrame, scale: str) -> None:
    """Mean Spearman correlation over the declared benchmarks, accuracies averaged over three seeds."""
    pt = measured[(measured.scale == scale) & (measured.stage == "PT")]
    accuracy = pt.groupby(["benchmark", "mixture"]).accuracy.mean()
    rho = [
        spearmanr([dose(m, slug) for m in PAPER_MIXTURES], [accuracy[slug, m] for m in PAPER_MIXTURES]).statistic
        for slug in learnable()
    ]
    assert np.mean(rho) >= 0.7, dict(zip(learnable(), rho, strict=True))
