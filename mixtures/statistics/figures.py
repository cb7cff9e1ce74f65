"""Three figures of a pool: document lengths, cross-entropies between sources, scores side by side.

In: the tables' statistics. Out: SVG, the same bytes for the same numbers. Sources are labelled where they are drawn;
colours (Okabe and Ito's, and one hue of rising darkness) can be told apart by colour-blind readers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mixtures.statistics.histogram import EDGES
from mixtures.statistics.tables import Statistics

COLOURS = {"web": "#0072B2", "code": "#D55E00", "curated": "#009E73"}
INK, FAINT = "#222222", "#d9d9d9"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "xtick.color": "#555555",
    "text.color": INK,
    "axes.labelcolor": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "mixtures.statistics",
}
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


def figures(statistics: Statistics, titles: Mapping[str, str], *, synthetic: bool) -> dict[str, bytes]:
    """SVG by name. titles: what the sources are called."""
    matplotlib.use("Agg")
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in (("lengths", lengths), ("cross_entropy", cross_entropy), ("scores", scores)):
            figure = draw(statistics, titles)
            if synthetic:
                figure.text(0.99, 0.006, "synthetic documents", ha="right", va="bottom", color="#777777")
            stream = io.BytesIO()
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
            drawn[name] = _renamed(stream.getvalue())
    return drawn


def _renamed(svg: bytes) -> bytes:
    """Number the ids that matplotlib makes from positions: the layout's last bits differ from run to run."""
    numbers: dict[bytes, bytes] = {}
    made = rb"(?<=[\"#])[A-Za-z]+[0-9a-f]{10}(?=[\")])"
    return re.sub(made, lambda found: numbers.setdefault(found[0], b"id%d" % len(numbers)), svg)


def lengths(statistics: Statistics, titles: Mapping[str, str]) -> Figure:
    """How many documents have each length; one ridge for each source, its median marked."""
    figure = _figure(7.4, 0.5 * len(titles) + 1.3)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, measure in zip(axes, ("tokens", "characters"), strict=True):
        for row, values in enumerate(statistics.rows):
            sums = statistics.sums[values["source"]]
            counts = sums["sizes"][f"{measure}_histogram"]
            if not counts.sum():
                continue
            at, density = _density(counts)
            colour = COLOURS[values["kind"]]
            axis.fill_between(at, -row, -row + 0.85 * density, color=colour, alpha=0.55, linewidth=0)
            axis.plot(at, -row + 0.85 * density, color=colour, linewidth=0.9)
            middle = values[f"{measure}_p50"]
            axis.plot([middle, middle], [-row, -row + 0.3], color=INK, linewidth=1.2)
            axis.annotate(
                _short(middle),
                (middle, -row + 0.12),
                (3, 0),
                textcoords="offset points",
                fontsize=7.5,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(f"{measure} in a document (median marked)")
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color=FAINT, linewidth=0.6)
        axis.set_axisbelow(True)
    _label_sources(axes[0], statistics, titles, step=-1)
    axes[0].set_ylim(-len(titles) + 0.85, 1.0)
    _key(figure, statistics)
    return figure


def cross_entropy(statistics: Statistics, titles: Mapping[str, str]) -> Figure:
    """Rows: text; columns: models. Numbers: nats a token; shade: the excess over the row's own model."""
    sources = list(statistics.sums)
    nats = np.stack([statistics.pool.cross_entropies(sums["unigrams"]["counts"]) for sums in statistics.sums.values()])
    excess = nats - np.diag(nats)[:, None]
    size = 0.62 * len(sources)
    figure = _figure(size + 2.6, size + 1.2)
    axis = figure.subplots()
    image = axis.imshow(excess, cmap="Blues", vmin=0.0, aspect="equal")
    highest = max(float(excess.max()), 1e-9)
    for row, column in np.ndindex(*nats.shape):
        own = row == column
        shade = "white" if excess[row, column] / highest > 0.6 else INK
        weight = "bold" if own else "normal"
        axis.text(column, row, f"{nats[row, column]:.2f}", ha="center", va="center", color=shade, fontweight=weight)
    names = [titles[source] for source in sources]
    axis.set_xticks(range(len(names)), names, rotation=40, ha="left", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        for label, source in zip(labels, sources, strict=True):
            label.set_color(COLOURS[statistics.kinds[source]])
    axis.set_ylabel("text of")
    axis.set_title("under the unigram model of   (numbers: nats a token)", loc="left")
    bar = figure.colorbar(image, ax=axis, shrink=0.7, pad=0.02)
    bar.set_label("excess over the text's own model, nats a token")
    bar.outline.set_visible(False)
    _key(figure, statistics)
    return figure


def scores(statistics: Statistics, titles: Mapping[str, str]) -> Figure:
    """One panel for each score, one row for each source."""
    columns = 4
    rows = -(-len(SCORES) // columns)
    figure = _figure(9.6, rows * (0.2 * len(titles) + 0.85) + 0.2)
    panels = figure.subplots(rows, columns, sharey=True)
    for number, (axis, (score, (title, unit))) in enumerate(zip(panels.flat, SCORES.items(), strict=True)):
        for row, values in enumerate(statistics.rows):
            value = values[score]
            axis.axhline(-row, color=FAINT, linewidth=0.6, zorder=0)
            if value is not None:
                axis.plot(value, -row, "o", color=COLOURS[values["kind"]], markersize=5.5)
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xlabel(unit, fontsize=8, color="#555555")
        axis.margins(x=0.12)
        axis.locator_params(axis="x", nbins=4)
        axis.spines["left"].set_visible(False)
        if number % columns == 0:
            _label_sources(axis, statistics, titles, step=-1)
        else:
            axis.tick_params(axis="y", length=0, labelleft=False)
    panels.flat[0].set_ylim(-len(titles) + 0.4, 0.6)
    _key(figure, statistics)
    return figure


def _figure(width: float, height: float) -> Figure:
    key = 0.2 / height
    engine = ConstrainedLayoutEngine(rect=(0, key, 1, 1 - key), h_pad=0.08, w_pad=0.06)
    return Figure(figsize=(width, height), layout=engine)


def _density(counts: Any) -> tuple[Any, Any]:
    """Points of a curve over the length (geometric middle of quarter octaves), the highest at 1."""
    middles = np.sqrt(np.maximum(EDGES[:-1], 1) * np.maximum(EDGES[1:] - 1, 1).astype(float))
    step = 2.0**0.25
    groups = np.floor(np.log(middles) / np.log(step)).astype(int)
    smooth = np.bincount(groups, weights=counts)
    held = np.flatnonzero(smooth)
    first, last = max(0, held[0] - 1), held[-1] + 2
    smooth = np.append(smooth, 0.0)[first:last]
    return step ** (np.arange(first, first + len(smooth)) + 0.5), smooth / smooth.max()


def _key(figure: Figure, statistics: Statistics) -> None:
    """The kinds of sources, each in its colour, at the lower edge."""
    kinds = [kind for kind in COLOURS if kind in statistics.kinds.values()]
    for place, kind in enumerate(kinds):
        figure.text(0.01 + 0.09 * place, 0.006, kind, color=COLOURS[kind], fontsize=9, va="bottom", fontweight="bold")


def _label_sources(axis: Axes, statistics: Statistics, titles: Mapping[str, str], step: int) -> None:
    axis.set_yticks([step * row for row in range(len(titles))], [titles[source] for source in statistics.sums])
    axis.tick_params(axis="y", length=0)
    for label, source in zip(axis.get_yticklabels(), statistics.sums, strict=True):
        label.set_color(COLOURS[statistics.kinds[source]])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value < 10_000 else f"{value / 1000:,.0f}k"
