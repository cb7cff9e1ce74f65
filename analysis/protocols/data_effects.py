"""Properties of the data against accuracy: the code share (Figures 14 and 15) and the web source (Tables 7 and 11).

In: `Panel` and the weights of configs/mixtures. Out: `Association`s of the code share with scores, differences between
web sources at equal code share, and what the design of the mixtures cannot tell apart, in words.
"""

from __future__ import annotations

import itertools

import numpy as np

from analysis.panel.panel import Design, Panel
from analysis.stats.association import Association, correlate
from analysis.stats.estimates import Estimate, mean_estimate, paired_difference
from configs.load import load_mixture, load_sources

KINDS = ("web", "code", "curated")


# ---------------------------------------------------------------------------------------------- code share


def code_over_mixtures(panel: Panel, scores: np.ndarray) -> list[Association]:
    """Code per cent against the scores of all mixtures, scores [rows, M]; those of unknown design are left out."""
    percents = np.broadcast_to(code_percents(panel), scores.shape)
    return correlate(percents, scores, "mixtures", panel.web_blocks())


def code_over_shares(panel: Panel, scores: np.ndarray) -> list[Association]:
    """Code per cent against the means by code share of scores [rows, M]: three points in the paper's design.

    A share has a mean only if all its mixtures were measured: without one web source it would be another mean.
    """
    percents = code_percents(panel)
    shares = np.unique(percents[np.isfinite(percents)])
    means = np.array([scores[:, percents == share].mean(axis=1) for share in shares]).reshape(-1, len(scores)).T
    return correlate(np.broadcast_to(shares, means.shape), means, "means by code share")


def code_percents(panel: Panel) -> np.ndarray:
    """Code per cent of each mixture, [M]; NaN where its design is unknown."""
    known = (panel.design[m].code_percent if m in panel.design else None for m in panel.mixtures)
    return np.array([np.nan if percent is None else percent for percent in known])


# ---------------------------------------------------------------------------------------------- web source


def web_sources(panel: Panel) -> list[str]:
    return list(dict.fromkeys(panel.design[mixture].web for mixture in panel.mixtures if mixture in panel.design))


def web_of_mixtures(panel: Panel) -> np.ndarray:
    """Web source of each mixture, str [M]; empty where its design is unknown."""
    return np.array([panel.design[m].web if m in panel.design else "" for m in panel.mixtures], dtype=str)


def web_means(panel: Panel, scores: np.ndarray) -> dict[str, Estimate]:
    """Mean of scores [M] over the mixtures of each web source."""
    webs = web_of_mixtures(panel)
    return {web: mean_estimate(scores[webs == web], "mixtures") for web in web_sources(panel)}


def web_differences(panel: Panel, scores: np.ndarray) -> dict[tuple[str, str], Estimate]:
    """(web, other) -> `web_difference` of every pair of sources whose code shares are known."""
    webs, known = web_of_mixtures(panel), np.isfinite(code_percents(panel))
    sources = [web for web in web_sources(panel) if known[webs == web].any()]
    pairs = ((web, other) for other, web in itertools.combinations(sources, 2))
    return {pair: web_difference(panel, scores, *pair) for pair in pairs}


def web_difference(panel: Panel, scores: np.ndarray, web: str, other: str) -> Estimate:
    """Mean of web less other over the code shares that both have, of scores [M]."""
    percents, webs = code_percents(panel), web_of_mixtures(panel)
    known = np.isfinite(percents)
    differences = group_differences(scores[known], webs[known] == web, webs[known] == other, percents[known])
    return paired_difference(differences, "shares")


def group_differences(values: np.ndarray, treated: np.ndarray, control: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean of the treated less mean of the control mixtures in each group that has both, [..., groups].

    values: [..., mixtures]; treated, control (bool), groups: [mixtures]. A group that lacks a side is left out, so that
    what remains is balanced.
    """
    differences = [np.empty((*values.shape[:-1], 0))]
    for group in np.unique(groups):
        sides = [values[..., (groups == group) & side] for side in (treated, control)]
        if all(side.shape[-1] for side in sides):
            differences.append(sides[0].mean(axis=-1, keepdims=True) - sides[1].mean(axis=-1, keepdims=True))
    return np.concatenate(differences, axis=-1)


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
