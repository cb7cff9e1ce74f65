"""Figures as PDF: the marks of the SVG, as style.css has a browser paint them, in a file that a journal takes."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch
from matplotlib.text import Text

from analysis.rendering.drawing import Figure, Scene, style
from analysis.rendering.pdf import page, write_pdf
from analysis.rendering.stylesheet import parse, project_style

SVG = "{http://www.w3.org/2000/svg}"
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
SMALL = """
:root, svg { --ink: #111111; --blue: #0000ff; }
@media (prefers-color-scheme: dark) { :root, svg { --ink: #eeeeee; } svg .late { fill: #eeeeee; } }
svg { font: 12px "Segoe UI", "DejaVu Sans"; max-width: 100%; }
svg .end.hue { fill: var(--blue); }  /* stronger than what follows */
svg .end { fill: #222222; stroke: none; }
svg .hue { stroke: var(--blue); stroke-width: 1.5px; stroke-dasharray: 4 3; opacity: .5; }
svg text { fill: var(--ink); }
svg text.hue { stroke: none; font-weight: 600; font-size: 10.5px; }
.late { fill: #333333; background: var(--ink); }
"""


def painted(figure: Figure) -> list[ET.Element]:
    """Elements of the SVG that are marks, in drawing order."""
    return [element for element in ET.fromstring(figure.scene.svg()) if element.tag != f"{SVG}style"]


def corners(element: ET.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape in px, stroke not counted."""
    kind = element.tag.removeprefix(SVG)
    number = {key: float(value) for key, value in element.attrib.items() if re.fullmatch(r"-?[\d.]+", value)}
    if kind == "circle":
        x, y, r = number["cx"], number["cy"], number["r"]
        return x - r, y - r, x + r, y + r
    if kind == "rect":
        return number["x"], number["y"], number["x"] + number["width"], number["y"] + number["height"]
    if kind == "line":
        points = [(number["x1"], number["y1"]), (number["x2"], number["y2"])]
    else:
        points = [(float(x), float(y)) for x, y in (point.split(",") for point in element.attrib["points"].split())]
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def with_all_kinds(figures: dict[str, Figure]) -> dict[str, Figure]:
    """As few as have every kind of mark in every look, in one order or another."""
    kinds = {name: {(mark["kind"], mark["cls"]) for mark in figure.scene.marks} for name, figure in figures.items()}
    kept: dict[str, Figure] = {}
    for name in sorted(kinds, key=lambda name: len(figures[name].scene.marks)):
        if kinds[name] - set().union(*(kinds[other] for other in kept)):
            kept[name] = figures[name]
    return kept


def test_every_mark_is_where_the_svg_has_it(demo_figures: dict[str, Figure]) -> None:
    figures = with_all_kinds(demo_figures)
    assert len(figures) > 5
    for name, figure in figures.items():
        made = page(figure.scene)
        artists = sorted(made.artists, key=lambda artist: artist.get_zorder())
        elements = painted(figure)
        assert len(artists) == len(elements) > 50, name
        high = figure.scene.height
        for element, artist in zip(elements, artists, strict=True):
            if isinstance(artist, Text):
                assert artist.get_text() == " ".join((element.text or "").split())
                place = float(element.attrib["x"]), float(element.attrib["y"])
                anchor = {"left": "start", "center": "middle", "right": "end"}[artist.get_horizontalalignment()]
                assert element.get("text-anchor", "start") == anchor
                turn = re.match(r"rotate\((\S+)", element.get("transform", "rotate(0"))
                assert turn and artist.get_rotation() == -float(turn[1]) % 360
                x, y = artist.get_transform().transform(artist.get_position())
                assert (x / 0.75, high - y / 0.75) == pytest.approx(place, abs=1e-6)
                own = re.match("fill:(.*)", element.get("style", ""))
                assert not own or artist.get_color() == own[1]
                continue
            assert isinstance(artist, PathPatch)
            box = artist.get_path().transformed(artist.get_transform()).get_extents()
            found = box.x0 / 0.75, high - box.y1 / 0.75, box.x1 / 0.75, high - box.y0 / 0.75
            if "fill" in element.attrib:
                assert to_hex(artist.get_facecolor()) == element.attrib["fill"]
            # A translucent dot takes its stroke in: half a px on each side.
            slack = 0.5 if artist.get_alpha() != 1 else 0.0
            assert found == pytest.approx(corners(element), abs=slack + 1e-3), (name, element.attrib)


def test_the_file_is_what_a_journal_takes(demo_figures: dict[str, Figure], tmp_path: Path) -> None:
    for name in ("figure1", "alignment", "figure10", "accuracy"):
        figure, path = demo_figures[name], tmp_path / f"{name}.pdf"
        write_pdf(figure, path)
        content = path.read_bytes()
        if name == "alignment":
            write_pdf(figure, path)
            assert path.read_bytes() == content
        size = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
        assert size and [float(side) / 0.75 for side in size.groups()] == pytest.approx(
            [figure.scene.width, figure.scene.height], abs=0.01
        )
        assert b"/FontFile2" in content and b"/Type3" not in content and b"/Type1" not in content
        assert b"CreationDate" not in content and b"/Image" not in content.replace(b"/ImageB /ImageC /ImageI", b"")
        fonts = set(re.findall(rb"/FontName /[A-Z]{6}\+([\w-]+)", content))
        assert fonts and fonts <= {b"DejaVuSans", b"DejaVuSans-Bold"}
        # Operators that paint a path, and that begin a text, against the marks.
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, flags=re.DOTALL)
        drawn = next(text for text in map(inflated, streams) if b"\nBT\n" in text)
        kinds = [mark["kind"] for mark in figure.scene.marks if mark["kind"] != "text" or mark["words"].strip()]
        assert len(re.findall(rb"(?m)(?:^| )[fSB]$", drawn)) == len(kinds) - kinds.count("text")
        assert len(re.findall(rb"(?m)^BT$", drawn)) == kinds.count("text")
        assert not any(str(tip).encode() in drawn for tip in ("not measured", "accuracy 0."))


def inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_every_class_of_a_figure_has_a_rule(demo_figures: dict[str, Figure]) -> None:
    known = project_style().classes
    for name, figure in demo_figures.items():
        used = {cls for mark in figure.scene.marks for cls in mark["cls"].split()}
        assert used <= known, name


# ---------------------------------------------------------------------------------------------- the stylesheet


def test_stronger_and_later_rules_win() -> None:
    sheet = parse(SMALL)
    both = sheet.look("circle", "hue end")
    assert (both.fill, both.stroke, both.stroke_width) == ("#0000ff", "#0000ff", 1.5)
    assert (both.dashes, both.opacity, both.font_size, both.bold) == ((4.0, 3.0), 0.5, 12.0, False)
    end = sheet.look("circle", "end")
    assert (end.fill, end.stroke, end.dashes) == ("#222222", None, ())
    words = sheet.look("text", "hue")
    assert (words.fill, words.stroke, words.font_size, words.bold) == ("#111111", None, 10.5, True)
    assert sheet.look("text", "late").fill == "#333333"  # a class is stronger than an element
    assert sheet.look("rect", "unknown").fill == "#000"
    assert sheet.look("rect", "", "#abcdef").fill == "#abcdef"
    assert sheet.look("rect", "late", "#abcdef").fill == "#333333"
    assert sheet.classes == {"end", "hue", "late"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("@media print { svg .x { fill: #000000; } }", "only the dark theme"),
        ("svg > .x { fill: #000000; }", "unknown selector 'svg > .x'"),
        ("svg .x:hover { fill: #000000; }", "unknown selector"),
        ("svg .x { filter: blur(2px); }", "unknown property 'filter'"),
        ("svg .x { fill: var(--none); }", "--none, which is not defined"),
        ("svg .x { fill: rebeccapurple; }", "unknown colour 'rebeccapurple'"),
        ("svg .x { fill }", "not a declaration"),
        ("svg .x { fill: #000000; } }", "not a rule"),
        ("svg { font: bold 12px serif; }", "unknown font"),
    ],
)
def test_what_the_stylesheet_cannot_say_is_refused(line: str, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        parse(SMALL + line).look("rect", "x")


def test_a_translucent_mark_of_two_colours_is_refused() -> None:
    scene = Scene(20, 20, "")
    scene.dot(10, 10, 4, "cloud paper")
    with pytest.raises(AssertionError, match="opacity of fill and stroke"):
        page(scene)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_computes_the_same_looks(demo_figures: dict[str, Figure], tmp_path: Path) -> None:
    names = ("fill", "stroke", "strokeWidth", "strokeDasharray", "opacity", "fontSize", "fontWeight")
    scenes = "".join(figure.scene.svg() for figure in demo_figures.values())
    # Lines of the loss figure, which a study of scores alone does not draw.
    curves = Scene(20, 20, "")
    for hue in range(3):
        curves.path([(0, 0), (9, 9)], f"curve hue{hue} dash{hue}")
    script = f"""const own = (e, name) => e.getAttribute(name) ?? "";
        const looks = [...document.querySelectorAll("svg > *")].map(e => [e.tagName, own(e, "class"), own(e, "fill"),
            own(e, "style"), ...{json.dumps(names)}.map(n => getComputedStyle(e)[n])]);
        document.body.textContent = JSON.stringify(looks)"""
    document = tmp_path / "figures.html"
    document.write_text(f"<style>{style()}</style><body>{scenes}{curves.svg()}<script>{script}</script></body>")
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [str(CHROMIUM), *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    told = subprocess.run([*command, document.as_uri()], check=True, capture_output=True, text=True, timeout=120)
    body = re.search(r"<body>(.*)</body>", told.stdout, flags=re.DOTALL)
    assert body
    looks: list[list[str]] = json.loads(html.unescape(body[1]))
    assert len(looks) == sum(len(figure.scene.marks) for figure in demo_figures.values()) + 3
    for element, cls, fill, own, *computed in looks:
        mine = project_style().look(element, cls, fill)
        theirs = dict(zip(names, computed, strict=True))
        if not own:
            assert hexed(theirs["fill"]) == (mine.fill and to_hex(mine.fill)), (element, cls)
        assert hexed(theirs["stroke"]) == mine.stroke, (element, cls)
        assert float(theirs["strokeWidth"].removesuffix("px")) == mine.stroke_width
        dashes = theirs["strokeDasharray"]
        assert ([] if dashes == "none" else [float(d.removesuffix("px")) for d in dashes.split(",")]) == [*mine.dashes]
        assert float(theirs["opacity"]) == mine.opacity
        assert float(theirs["fontSize"].removesuffix("px")) == mine.font_size
        assert (theirs["fontWeight"] == "600") == mine.bold


def hexed(colour: str) -> Any:
    """`rgb(1, 2, 3)` as #010203; None for `none`."""
    return None if colour == "none" else "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour))
