"""What of the data goes with accuracy: the code share (Figures 14 and 15) and the web source (Tables 7 and 11).

In: `Panel` and the weights of configs/mixtures. Out: `Association`s of the code share with scores, differences between
web sources at equal code share, and what the design of the mixtures cannot tell apart, in words.
"""

from __future__ import annotations

import itertools

import numpy as np

from analysis.panel.panel import Design, Panel
from analysis.stats.association import Association, associate
from analysis.stats.estimates import Estimate, mean_estimate, paired_difference
from configs.load import load_mixture, load_sources

KINDS = ("web", "code", "curated")


# ---------------------------------------------------------------------------------------------- code share


def code_over_mixtures(panel: Panel, scores: np.ndarray) -> list[Association]:
    """Code per cent against the scores of all mixtures, scores [rows, M]; those of unknown design are left out."""
    percents = np.broadcast_to(code_percents(panel), scores.shape)
    return associate(percents, scores, "mixtures", panel.web_blocks())


def code_over_shares(panel: Panel, scores: np.ndarray) -> list[Association]:
    """Code per cent against the means by code share of scores [rows, M]: three points in the paper's design.

    A share has a mean only if all its mixtures were measured: without one web source it would be another mean.
    """
    percents = code_percents(panel)
    shares = np.unique(percents[np.isfinite(percents)])
    means = np.array([scores[:, percents == share].mean(axis=1) for share in shares]).reshape(-1, len(scores)).T
    return associate(np.broadcast_to(shares, means.shape), means, "means by code share")


def code_percents(panel: Panel) -> np.ndarray:
    """Of each mixture, [M]; NaN where its design is unknown."""
    known = (panel.design[m].code_percent if m in panel.design else None for m in panel.mixtures)
    return np.array([np.nan if percent is None else percent for percent in known])


# ---------------------------------------------------------------------------------------------- web source


def web_sources(panel: Panel) -> list[str]:
    return list(dict.fromkeys(panel.design[mixture].web for mixture in panel.mixtures if mixture in panel.design))


def web_means(panel: Panel, scores: np.ndarray) -> dict[str, Estimate]:
    """Mean of scores [M] over the mixtures of each web source."""
    webs = np.array([panel.design[m].web if m in panel.design else "" for m in panel.mixtures])
    return {web: mean_estimate(scores[webs == web], "mixtures") for web in web_sources(panel)}


def web_differences(panel: Panel, scores: np.ndarray) -> dict[tuple[str, str], Estimate]:
    """(web, other) -> `web_difference` of every pair of sources whose code shares are known."""
    known = np.isfinite(code_percents(panel))
    webs = dict.fromkeys(panel.design[panel.mixtures[m]].web for m in np.flatnonzero(known))
    pairs = ((web, other) for other, web in itertools.combinations(webs, 2))
    return {pair: web_difference(panel, scores, *pair) for pair in pairs}


def web_difference(panel: Panel, scores: np.ndarray, web: str, other: str) -> Estimate:
    """Mean of web less other over the code shares that both have, of scores [M]."""
    cells: dict[tuple[str, float], list[float]] = {}
    for mixture, percent, score in zip(panel.mixtures, code_percents(panel), scores, strict=True):
        if np.isfinite(percent):
            cells.setdefault((panel.design[mixture].web, percent), []).append(float(score))
    shares = sorted({code for w, code in cells if w == web} & {code for w, code in cells if w == other})
    differences = np.array([np.mean(cells[web, share]) - np.mean(cells[other, share]) for share in shares])
    return paired_difference(differences, "shares")


# ---------------------------------------------------------------------------------------------- confounds


def _configured(panel: Panel) -> dict[str, Design]:
    """Mixtures whose weights are in configs/mixtures."""
    return {mixture: design for mixture, design in panel.design.items() if design.code_percent is not None}


def share_confounds(panel: Panel) -> tuple[str, ...]:
    """Sentences: whether the code share can be told from the other shares."""
    kinds = {name: source.kind for name, source in load_sources().sources.items()}
    shares = np.array(
        [
            [sum(w for s, w in load_mixture(mixture).weights.items() if kinds[s] == kind) for kind in KINDS]
            for mixture in _configured(panel)
        ]
    ).reshape(-1, len(KINDS))
    if len(shares) and np.linalg.matrix_rank(shares - shares.mean(axis=0), tol=1e-6) == 1:
        return (
            "confounded: web, code and curated shares lie on one line, so that an effect of code is not told from one "
            "of curated text or of less web text",
        )
    return ()


def source_confounds(panel: Panel) -> tuple[str, ...]:
    """Sentences: whether the web source can be told from the code source."""
    sources = load_sources().sources
    code: dict[str, set[str]] = {}
    for mixture, design in _configured(panel).items():
        weights = load_mixture(mixture).weights
        names = {sources[s].display for s, weight in weights.items() if sources[s].kind == "code" and weight > 0}
        code.setdefault(design.web, set()).update(names)
    if len({frozenset(names) for names in code.values()}) < 2:
        return ()
    pairs = "; ".join(f"{web}: {' and '.join(sorted(names)) or 'no code'}" for web, names in code.items())
    return (f"confounded: web sources come with code sources of their own ({pairs}), a difference is one of both",)
