"""Three figures of a pool: document lengths, cross-entropies between sources, scores side by side.

In: the tables' statistics. Out: `Scene`s, which become SVG; the same bytes for the same numbers. Sources are labelled
where they are drawn, in the colour of their kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from configs.drawing.scene import WIDTH, Axis, Scene, sequential
from mixtures.statistics.histogram import EDGES
from mixtures.statistics.tables import Statistics

HUES = {"web": "commonsense", "code": "science", "curated": "semantic"}
ROW = 19
SCORES = {
    "compression_ratio": ("Compression", "bytes / zlib bytes"),
    "type_token_ratio": ("Type/token ratio", "of 50 words"),
    "readability": ("Readability", "Flesch points, higher is easier"),
    "formality": ("Formality", "points"),
    "narrativity": ("Narrativity", "marks/100 words, higher is narrative"),
    "code_share": ("Code", "share of text"),
    "symbol_share": ("Symbols", "share of characters"),
    "digit_share": ("Digits", "share of characters"),
    "bytes_per_token": ("Bytes per token", "bytes"),
    "pool_cross_entropy": ("Cross-entropy to the pool", "nats/token"),
    "high_entropy_share": ("High-entropy tokens", "share of tokens"),
    "words_per_sentence": ("Sentence length", "words"),
}


def figures(statistics: Statistics, titles: Mapping[str, str], *, synthetic: bool) -> dict[str, Scene]:
    """The figures of a pool, by name; titles: names of the sources."""
    drawn = {
        "lengths": lengths(statistics, titles),
        "cross_entropy": cross_entropy(statistics, titles),
        "scores": scores(statistics, titles),
    }
    for scene in drawn.values():
        kinds = (kind for kind in HUES if kind in statistics.kinds.values())
        for place, kind in enumerate(kinds):
            scene.text(10 + 70 * place, scene.height - 6, kind, f"strong {HUES[kind]}")
        if synthetic:
            scene.text(scene.width - 10, scene.height - 6, "synthetic documents", "soft small", "end")
    return drawn


def lengths(statistics: Statistics, titles: Mapping[str, str]) -> Scene:
    """How many documents have each length; one ridge for each source, its median marked."""
    step = 46
    bottom = 20 + step * len(titles)
    scene = Scene(WIDTH, bottom + 60, "How many documents of each source have each length")
    names = _names_px(titles)
    _name_sources(scene, statistics, titles, 20 + step, step)
    wide = (WIDTH - names) / 2
    for i, measure in enumerate(("tokens", "characters")):
        curves = {
            values["source"]: _density(statistics.sums[values["source"]]["sizes"][f"{measure}_histogram"])
            for values in statistics.rows
        }
        ends = np.log10(np.concatenate([at for at, _ in curves.values()]))
        x = Axis(ends.min(), ends.max(), names + i * wide + 10, names + (i + 1) * wide - 20)
        for tick in (m * 10.0**power for power in range(12) for m in (1, 2, 5)):
            if x.low <= np.log10(tick) <= x.high:
                scene.line(x(np.log10(tick)), 14, x(np.log10(tick)), bottom, "grid")
                scene.text(x(np.log10(tick)), bottom + 14, _short(tick), "soft small", "middle")
        for row, values in enumerate(statistics.rows):
            base, (at, density) = 20 + step * (row + 1), curves[values["source"]]
            if not len(at):
                continue
            ridge = [(x(np.log10(a)), base - 0.85 * step * d) for a, d in zip(at, density, strict=True)]
            scene.path([(ridge[0][0], base), *ridge, (ridge[-1][0], base)], f"cloud {HUES[values['kind']]}")
            middle = x(np.log10(values[f"{measure}_p50"]))
            scene.line(middle, base, middle, base - 0.3 * step, "tick")
            scene.text(middle + 4, base - 5, _short(values[f"{measure}_p50"]), "small")
        scene.text((x.start + x.end) / 2, bottom + 32, f"{measure} in a document (median marked)", "soft", "middle")
    return scene


def cross_entropy(statistics: Statistics, titles: Mapping[str, str]) -> Scene:
    """Rows: text; columns: models. Numbers: nats a token; shade: the excess over the row's own model."""
    nats = np.stack([statistics.pool.cross_entropies(sums["unigrams"]["counts"]) for sums in statistics.sums.values()])
    excess = nats - np.diag(nats)[:, None]
    cell, names = 58.0, _names_px(titles)
    top, size = 40 + 0.7 * names, cell * len(nats)
    scene = Scene(max(names + size + 60, 720), top + size + 70, "Cross-entropy of each source's text")
    _name_sources(scene, statistics, titles, top + cell / 2 + 4, cell)
    scene.text(10, 14, "text of each row under the unigram model of each column, nats a token", "head")
    for column, source in enumerate(statistics.sums):
        x = names + cell * (column + 0.5)
        scene.text(x, top - 8, titles[source], HUES[statistics.kinds[source]], turn=-40)
    for row, column in np.ndindex(*nats.shape):
        x, y = names + cell * column, top + cell * row
        fill, ink = sequential(1 - float(excess[row, column]) / max(float(excess.max()), 1e-9))
        scene.rect(x, y, cell - 1, cell - 1, fill)
        look = "strong" if row == column else ""
        scene.text(x + cell / 2, y + cell / 2 + 4, f"{nats[row, column]:.2f}", look, "middle", ink)
    for place in range(9):
        scene.rect(20 + 40 * place, top + size + 12, 39, 10, sequential(1 - place / 8)[0])
        scene.text(40 + 40 * place, top + size + 36, f"{place / 8 * excess.max():.2g}", "soft small", "middle")
    scene.text(390, top + size + 22, "excess over the text's own model, nats a token", "soft small")
    return scene


def scores(statistics: Statistics, titles: Mapping[str, str]) -> Scene:
    """One panel for each score, one row for each source."""
    columns, high, names = 4, 64 + ROW * len(titles), _names_px(titles)
    wide = (WIDTH - names) / columns
    lines = -(-len(SCORES) // columns)
    scene = Scene(WIDTH, high * lines + 26, "Scores of each source, side by side")
    for line in range(lines):
        _name_sources(scene, statistics, titles, high * line + 34, ROW)
    for number, (score, (title, unit)) in enumerate(SCORES.items()):
        left, top = names + wide * (number % columns) + 12, high * (number // columns)
        known = [values[score] for values in statistics.rows if values[score] is not None]
        low, up = min(known, default=0.0), max(known, default=0.0)
        margin = 0.12 * (up - low) or 0.5
        x = Axis(low - margin, up + margin, left, left + wide - 30)
        scene.text(left, top + 14, title, "strong")
        scene.value_axis(x, x.ticks(4), top + 20, top + 24 + ROW * len(titles))
        for row, values in enumerate(statistics.rows):
            y = top + 30 + ROW * row
            scene.line(x.start, y, x.end, y, "grid")
            if values[score] is not None:
                tip = f"{titles[values['source']]}: {values[score]:.4g}"
                scene.dot(x(values[score]), y, 4, HUES[values["kind"]], tip)
        scene.text((x.start + x.end) / 2, top + 54 + ROW * len(titles), unit, "soft small", "middle")
    return scene


def _density(counts: Any) -> tuple[Any, Any]:
    """Points of a curve over the length (geometric middle of quarter octaves), the highest at 1."""
    if not counts.sum():
        return np.empty(0), np.empty(0)
    middles = np.sqrt(np.maximum(EDGES[:-1], 1) * np.maximum(EDGES[1:] - 1, 1).astype(float))
    step = 2.0**0.25
    groups = np.floor(np.log(middles) / np.log(step)).astype(int)
    smooth = np.bincount(groups, weights=counts)
    held = np.flatnonzero(smooth)
    first, last = max(0, held[0] - 1), held[-1] + 2
    smooth = np.append(smooth, 0.0)[first:last]
    return step ** (np.arange(first, first + len(smooth)) + 0.5), smooth / smooth.max()


def _names_px(titles: Mapping[str, str]) -> float:
    """Room for the longest name of a source."""
    return 20 + 7.5 * max(map(len, titles.values()))


def _name_sources(scene: Scene, statistics: Statistics, titles: Mapping[str, str], top: float, step: float) -> None:
    for row, source in enumerate(statistics.sums):
        scene.text(_names_px(titles) - 8, top + step * row, titles[source], HUES[statistics.kinds[source]], "end")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"
