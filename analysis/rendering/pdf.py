"""A figure as vector PDF, for a journal: the marks of its SVG at the same places, in the light theme.

In: a `Figure`; looks from templates/style.css. Out: one page of the scene's size (96 px an inch), fonts embedded as
TrueType, equal bytes for equal figures. What a mark says under the pointer is left out.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.figure import Figure as Page
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from analysis.rendering.drawing import Figure, Scene
from analysis.rendering.stylesheet import Look, project_style
from configs.artifacts import atomic_file

POINTS = 72 / 96
"""Points in a px of CSS: 72 and 96 make an inch."""
FONT = "DejaVu Sans"
"""The one family of style.css that comes with matplotlib, is free to embed and has every sign that figures use."""
ELEMENTS = {"dot": "circle"}  # a mark's name in SVG, where it differs
ANCHORS: dict[str, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}


def write_pdf(figure: Figure, path: Path) -> None:
    # Without who made it and when, equal figures are equal bytes.
    metadata = {"Title": figure.title, "Creator": None, "Producer": None, "CreationDate": None}
    with matplotlib.rc_context(), atomic_file(path) as stream:
        matplotlib.rcdefaults()  # a user's matplotlibrc has no say
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType; matplotlib's own choice, Type 3, is what journals refuse
        matplotlib.rcParams["path.simplify"] = False
        matplotlib.rcParams["lines.scale_dashes"] = False  # px, as in CSS, not line widths
        page(figure.scene).savefig(stream, format="pdf", metadata=metadata)


def page(scene: Scene) -> Page:
    """One artist a mark, in drawing order."""
    made = Page(figsize=(scene.width / 96, scene.height / 96), dpi=72, facecolor="none")
    place = Affine2D().scale(POINTS, -POINTS).translate(0, scene.height * POINTS)
    for order, mark in enumerate(scene.marks):
        artist = _text(mark) if mark["kind"] == "text" else _shape(mark)
        artist.set(transform=place, zorder=order)
        made.add_artist(artist)
    return made


def _shape(mark: dict[str, Any]) -> Artist:
    kind = mark["kind"]
    look = _look(ELEMENTS.get(kind, kind), mark["cls"], mark.get("fill", ""))
    fill = None if kind == "line" else look.fill
    stroke, grown = look.stroke, 0.0
    if look.opacity < 1 and fill and stroke:
        # PDF would let the stroke's inner half show the fill. One disc of both is what a browser paints.
        assert kind == "dot" and fill == stroke, f"opacity of fill and stroke together: {mark}"
        stroke, grown = None, look.stroke_width / 2
    return PathPatch(
        _outline(mark, grown),
        facecolor=fill or "none",
        edgecolor=stroke or "none",
        linewidth=look.stroke_width * POINTS if stroke else 0,
        linestyle=(0, [length * POINTS for length in look.dashes]) if look.dashes else "solid",
        alpha=look.opacity,
        capstyle="butt",
        joinstyle="miter",
    )


@functools.cache
def _look(element: str, classes: str, fill: str = "") -> Look:
    """A page has thousands of marks and few looks."""
    return project_style().look(element, classes, fill)


def _outline(mark: dict[str, Any], grown: float) -> Outline:
    """Outline of a shape, in px from the top left corner. grown: px added to the radius of a dot."""
    kind = mark["kind"]
    if kind == "dot":
        return Outline.circle((mark["x"], mark["y"]), mark["r"] + grown)
    if kind == "line":
        return Outline([(mark["x1"], mark["y1"]), (mark["x2"], mark["y2"])])
    if kind == "rect":
        x, y, right, bottom = mark["x"], mark["y"], mark["x"] + mark["w"], mark["y"] + mark["h"]
        return _closed([(x, y), (right, y), (right, bottom), (x, bottom)])
    corners = [tuple(map(float, point.split(","))) for point in mark["points"].split()]
    return _closed(corners) if kind == "polygon" else Outline(corners)


def _closed(corners: list[tuple[float, ...]]) -> Outline:
    return Outline([*corners, corners[0]], closed=True)


def _text(mark: dict[str, Any]) -> Text:
    look = _look("text", mark["cls"])
    assert look.stroke is None and look.opacity == 1, f"outlined or translucent words: {mark}"
    return Text(
        mark["x"],
        mark["y"],
        " ".join(mark["words"].split()),  # as XML joins white space
        color=mark["fill"] or look.fill,
        fontproperties=_font(look),
        horizontalalignment=ANCHORS[mark["anchor"]],
        verticalalignment="baseline",
        rotation=-mark["turn"],
        rotation_mode="anchor",
        parse_math=False,  # a dollar sign is a dollar sign
    )


def _font(look: Look) -> FontProperties:
    assert FONT in project_style().fonts, f"style.css no longer lists {FONT}"
    name = f"{FONT.replace(' ', '')}{'-Bold' if look.bold else ''}.ttf"
    return FontProperties(fname=Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size=look.font_size * POINTS)
