"""A figure as vector PDF, for a journal: typst draws the figure's SVG in its light theme.

In: a `Figure`; its looks come from configs/drawing/style.css. Out: one page of the scene's size (96 px an inch), fonts
embedded as TrueType, equal bytes for equal figures. What a mark says under the pointer is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import typst

from configs.artifacts import atomic_file
from configs.drawing.scene import Figure, style

# Without a date, equal figures are equal bytes. The page is as large as the picture.
DOCUMENT = b"""#set document(title: sys.inputs.title, date: none)
#set page(width: auto, height: auto, margin: 0pt)
#image(bytes(sys.inputs.svg), format: "svg")"""
FONTS = Path(__file__).parent / "fonts"
"""DejaVu Sans of style.css, which is free to embed: letters are the same on every machine."""
DARK = re.compile(r"@media \(prefers-color-scheme: dark\)\s*\{(?:[^{}]*\{[^{}]*\})*\s*\}")


def write_pdf(figure: Figure, path: Path) -> None:
    with atomic_file(path) as stream:
        stream.write(render(figure, "pdf"))


def render(figure: Figure, form: Literal["pdf", "png"]) -> bytes:
    """One page with the figure; png has a pixel for each px."""
    inputs = {"title": figure.title, "svg": figure.scene.svg(light_style())}
    fonts = typst.Fonts(include_system_fonts=False, font_paths=[FONTS])
    return typst.compile(DOCUMENT, font_paths=fonts, format=form, ppi=96, sys_inputs=inputs, pdf_tags=False)


def light_style() -> str:
    """style.css for a renderer that knows neither themes nor custom properties: each `var()` becomes its colour."""
    light = DARK.sub("", style())
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", light))
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], light)
