"""The doubt that is left in a decision between these same mixtures: their true scores are not known, only seen.

In: early and late scores of the mixtures, and draws of both in which they were drawn together
(`analysis.protocols.noise`). Out: 95 % intervals of the true decision accuracy, and of what the choice that was made
truly costs. They say nothing of other mixtures, as the bootstrap over mixtures does.

Noise makes mixtures look more different than they are, draws decision accuracy towards a half, and flatters the one
that looks best. So the truth is not sought around the scores seen, but inferred from them: true scores of mixtures are
normal, early and late correlated by an unknown r, and the scores seen are the truth plus noise of the covariance that
the draws show. Means, r, and standard deviations up to `WIDEST` times those seen are equally likely beforehand (Gelman
et al., Bayesian Data Analysis, 3rd ed., 5.4: the hierarchical normal model, here for pairs of scores).

Many examples tell their noise well; few seeds do not. The covariance of the seeds' noise is inverse Wishart around the
one that was found: with f degrees of freedom a variance is the one found times f over a chi-square (ibid., 3.2, 3.6).
Its standard deviations, too, are equally likely beforehand, and the scores seen say which of them fit.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, ndtri

from analysis.protocols.decisions import TIED, TOP, ranked_alike, top_regret
from analysis.protocols.noise import SeedNoise
from analysis.stats.resampling import SEED

WIDEST = 2.0
"""Largest true standard deviation on the grid, in standard deviations seen."""
DRAWS = 2000
_SPREADS = (np.arange(24) + 0.5) / 24 * WIDEST
_EDGES = np.tanh(np.linspace(-4.5, 4.5, 50))  # closer together where r is near -1 and 1
_R, _SPREAD_EARLY, _SPREAD_LATE = np.meshgrid((_EDGES[1:] + _EDGES[:-1]) / 2, _SPREADS, _SPREADS, indexing="ij")
_PRIOR = np.broadcast_to(np.diff(_EDGES)[:, None, None], _R.shape)
_EVEN = 1 / 1.2207440846057596 ** np.arange(1, 4)
_QUANTILES = (0.5 + np.multiply.outer(_EVEN, np.arange(_R.size).reshape(_R.shape))) % 1
"""Where in three distributions of the seeds' noise each point of the grid lies, [3, *grid].

The multiples of these numbers fill a cube evenly (Roberts 2018, the R3 sequence), so that a grid without axes for the
noise suffices."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class SameMixtures:
    accuracy: Ends
    """Interval of the decision accuracy between true scores."""
    regret: tuple[Ends, ...]
    """True late score of the best mixture less that of the best among the k that were first by the early score seen."""


def same_mixtures(
    early: np.ndarray,
    late: np.ndarray,
    drawn_early: np.ndarray,
    drawn_late: np.ndarray,
    seeds: SeedNoise | None = None,
) -> SameMixtures | None:
    """early, late: [mixtures], NaN: not measured; drawn: [draws, mixtures]; seeds: their part in the draws' noise.

    None for fewer than three mixtures, or where one of them has no draws.
    """
    there = np.isfinite(early) & np.isfinite(late)
    drawn = np.stack([drawn_early, drawn_late])[:, :, there]
    if there.sum() < 3 or not np.isfinite(drawn).all():
        return None
    seen = np.stack([early, late])[:, there]
    true_early, true_late = true_scores(seen, noise_covariance(drawn - seen[:, None]), seeds)
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


def true_scores(seen: np.ndarray, noise: np.ndarray, seeds: SeedNoise | None = None) -> np.ndarray:
    """Draws of the true scores, [2, DRAWS, mixtures], around a common mean of no meaning.

    seen: [2, mixtures]; noise: its covariance, [2, 2], taken for known but for the part of the seeds.
    """
    n = seen.shape[1]
    own = seen - seen.mean(axis=1, keepdims=True)
    sd = own.std(axis=1, ddof=1)
    unit = np.where(sd > TIED, sd, 1.0)
    own = own / unit[:, None]
    possible = _possible_noise(noise, seeds, unit)

    # ---- how likely is each r and each pair of standard deviations? (Wishart, with n - 1 degrees of freedom)
    (early, between), (_, late) = own @ own.T
    a, b = _SPREAD_EARLY**2 + possible.early, _SPREAD_LATE**2 + possible.late
    c = _R * _SPREAD_EARLY * _SPREAD_LATE + possible.between
    determinant = a * b - c**2
    fit = -(n - 1) / 2 * np.log(determinant) - (b * early + a * late - 2 * c * between) / (2 * determinant)
    total = np.cumsum(np.exp(fit - fit.max()) * _PRIOR * possible.prior)
    picked = np.searchsorted(total, (np.arange(DRAWS) + 0.5) / DRAWS * total[-1])
    r, first, second = (grid.ravel()[picked] for grid in (_R, _SPREAD_EARLY, _SPREAD_LATE))
    truth = _symmetric(first**2, r * first * second, second**2)
    all_seen = _symmetric(*(grid.ravel()[picked] for grid in (a, c, b)))

    # ---- the true scores, given those: what was seen, drawn towards the mean
    gain = truth @ np.linalg.inv(all_seen)
    values, vectors = np.linalg.eigh(truth - gain @ truth)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    found = gain @ own + root @ _standard_normal(n)
    return np.moveaxis(found * unit[:, None], 1, 0)


class _Noise(NamedTuple):
    """The noise at each point of the grid; an empty shape where it is the same everywhere."""

    early: np.ndarray
    """Variance."""
    late: np.ndarray
    between: np.ndarray
    """Covariance."""
    prior: np.ndarray
    """Weight that makes all standard deviations of the seeds' noise equally likely beforehand."""


def _possible_noise(noise: np.ndarray, seeds: SeedNoise | None, unit: np.ndarray) -> _Noise:
    """The noise that is compatible with what was found, in these units."""
    scale, nothing = np.outer(unit, unit), np.zeros(())
    more = _Noise(nothing, nothing, nothing, np.ones(()))
    if seeds:
        values, vectors = np.linalg.eigh(noise - seeds.covariance)
        noise = (vectors * np.clip(values, 0.0, None)) @ vectors.T  # draws err: no variance is below 0
        more = _possible_seed_noise(seeds.covariance / scale, seeds)
    known = noise / scale + TIED * np.eye(2)
    return _Noise(known[0, 0] + more.early, known[1, 1] + more.late, known[0, 1] + more.between, more.prior)


def _possible_seed_noise(found: np.ndarray, seeds: SeedNoise) -> _Noise:
    """The seeds' part; found: its covariance."""
    first, second = seeds.freedom
    if not seeds.same_runs:
        early, late = (_inverse_chi_square(freedom, i) for i, freedom in enumerate(seeds.freedom))
        return _Noise(found[0, 0] * early, found[1, 1] * late, np.zeros(()), np.sqrt(early * late))
    # Cholesky by hand: a variance may be 0, and few seeds may correlate perfectly.
    a = np.sqrt(first * found[0, 0])
    b = first * found[0, 1] / a if a > 0 else 0.0
    c = np.sqrt(max(0.0, second * found[1, 1] - b**2))
    one, both, other = _inverse_wishart(first)
    early, late = a**2 * one, b**2 * one + 2 * b * c * both + c**2 * other
    prior = np.sqrt((early if a > 0 else 1.0) * (late if found[1, 1] > 0 else 1.0))
    return _Noise(early, late, a * (b * one + c * both), prior)


@functools.cache
def _inverse_chi_square(freedom: int, sequence: int) -> np.ndarray:
    """`freedom` over a chi-square of as many degrees, at each point of the grid; 1 where seeds tell nothing."""
    return np.asarray(freedom / chdtri(freedom, _QUANTILES[sequence])) if freedom else np.ones(())


@functools.cache
def _inverse_wishart(freedom: int) -> tuple[np.ndarray, ...]:
    """Elements 11, 12 and 22 of inverses of Wishart matrices at each point of the grid (Bartlett's decomposition).

    One degree more than `freedom`: each variance alone then has 1 / chi-square of `freedom`.
    """
    first, second = chdtri(freedom + 1, _QUANTILES[0]), chdtri(freedom, _QUANTILES[1])
    below = ndtri(_QUANTILES[2])
    return (1 + below**2 / second) / first, -below / (np.sqrt(first) * second), 1 / second


def _symmetric(first: np.ndarray, between: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n, 2, 2] of three vectors [n]."""
    return np.stack([first, between, between, second], axis=1).reshape(-1, 2, 2)


@functools.cache
def _standard_normal(mixtures: int) -> np.ndarray:
    return np.random.default_rng([SEED, mixtures]).normal(size=(DRAWS, 2, mixtures))


def _ends(drawn: np.ndarray) -> Ends:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
