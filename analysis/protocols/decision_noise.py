"""The doubt that is left in a decision between these same mixtures: their true scores are not known, only seen.

In: early and late scores of the mixtures, and draws of both in which they were drawn together
(`analysis.protocols.noise`). Out: 95 % intervals of the true decision accuracy, and of what the choice that was made
truly costs. They say nothing of other mixtures, as the bootstrap over mixtures does.

Noise makes mixtures look more different than they are, draws decision accuracy towards a half, and flatters the one
that looks best. So the truth is not sought around the scores seen, but inferred from them: true scores of mixtures are
normal, early and late correlated by an unknown r, and the scores seen are the truth plus noise of the covariance that
the draws show. Means, r, and standard deviations up to `WIDEST` times those seen are equally likely beforehand (Gelman
et al., Bayesian Data Analysis, 3rd ed., 5.4: the hierarchical normal model with known noise, here for pairs of scores).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from analysis.protocols.decisions import TIED, TOP, ranked_alike, top_regret
from analysis.stats.resampling import SEED

WIDEST = 2.0
"""Largest true standard deviation on the grid, in standard deviations seen."""
DRAWS = 2000
_SPREADS = (np.arange(24) + 0.5) / 24 * WIDEST
_EDGES = np.tanh(np.linspace(-4.5, 4.5, 50))  # closer together where r is near -1 and 1
_R, _SPREAD_EARLY, _SPREAD_LATE = np.meshgrid((_EDGES[1:] + _EDGES[:-1]) / 2, _SPREADS, _SPREADS, indexing="ij")
_PRIOR = np.broadcast_to(np.diff(_EDGES)[:, None, None], _R.shape)

Ends = tuple[float, float]


@dataclass(frozen=True)
class SameMixtures:
    accuracy: Ends
    """Interval of the decision accuracy between true scores."""
    regret: tuple[Ends, ...]
    """True late score of the best mixture less that of the best among the k that were first by the early score seen."""


def same_mixtures(
    early: np.ndarray, late: np.ndarray, drawn_early: np.ndarray, drawn_late: np.ndarray
) -> SameMixtures | None:
    """early, late: [mixtures], NaN: not measured; drawn: [draws, mixtures].

    None for fewer than three mixtures, or where one of them has no draws.
    """
    there = np.isfinite(early) & np.isfinite(late)
    drawn = np.stack([drawn_early, drawn_late])[:, :, there]
    if there.sum() < 3 or not np.isfinite(drawn).all():
        return None
    seen = np.stack([early, late])[:, there]
    true_early, true_late = true_scores(seen, noise_covariance(drawn - seen[:, None]))
    chosen_by = np.broadcast_to(seen[0], true_late.shape)
    return SameMixtures(
        _ends(ranked_alike(true_early, true_late)),
        tuple(_ends(top_regret(chosen_by, true_late, k)) for k in TOP if k <= there.sum()),
    )


def noise_covariance(errors: np.ndarray) -> np.ndarray:
    """Between early and late, [2, 2], of errors [2, draws, mixtures]: what all mixtures share decides nothing."""
    own = errors - errors.mean(axis=2, keepdims=True)
    _, draws, mixtures = own.shape
    return np.einsum("adm,bdm->ab", own, own) / (draws * (mixtures - 1))


def true_scores(seen: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Draws of the true scores, [2, DRAWS, mixtures], around a common mean of no meaning; seen: [2, mixtures]."""
    n = seen.shape[1]
    own = seen - seen.mean(axis=1, keepdims=True)
    sd = own.std(axis=1, ddof=1)
    unit = np.where(sd > TIED, sd, 1.0)
    own = own / unit[:, None]
    noise = noise / np.outer(unit, unit) + TIED * np.eye(2)

    # ---- how likely is each r and each pair of standard deviations? (Wishart, with n - 1 degrees of freedom)
    (early, between), (_, late) = own @ own.T
    a, b = _SPREAD_EARLY**2 + noise[0, 0], _SPREAD_LATE**2 + noise[1, 1]
    c = _R * _SPREAD_EARLY * _SPREAD_LATE + noise[0, 1]
    determinant = a * b - c**2
    fit = -(n - 1) / 2 * np.log(determinant) - (b * early + a * late - 2 * c * between) / (2 * determinant)
    total = np.cumsum(np.exp(fit - fit.max()) * _PRIOR)
    picked = np.searchsorted(total, (np.arange(DRAWS) + 0.5) / DRAWS * total[-1])
    r, first, second = (grid.ravel()[picked] for grid in (_R, _SPREAD_EARLY, _SPREAD_LATE))
    truth = np.stack([first**2, r * first * second, r * first * second, second**2], axis=1).reshape(-1, 2, 2)

    # ---- the true scores, given those: what was seen, drawn towards the mean
    gain = truth @ np.linalg.inv(truth + noise)
    values, vectors = np.linalg.eigh(truth - gain @ truth)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    found = gain @ own + root @ _standard_normal(n)
    return np.moveaxis(found * unit[:, None], 1, 0)


@functools.cache
def _standard_normal(mixtures: int) -> np.ndarray:
    return np.random.default_rng([SEED, mixtures]).normal(size=(DRAWS, 2, mixtures))


def _ends(drawn: np.ndarray) -> Ends:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
