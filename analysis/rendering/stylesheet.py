"""How templates/style.css has a mark look on paper, for a renderer that is no browser.

In: our own stylesheet, of which this reads what it uses: custom properties, rules for <svg>, for its <text> and for
classes. Out: a `Look` for an element and its classes, in the light theme. What is not understood is refused, so that a
rule which the browser obeys is never silently lost.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from analysis.rendering.drawing import style

DARK = re.compile(r"@media \(prefers-color-scheme: dark\)\s*\{(?:[^{}]*\{[^{}]*\})*\s*\}")
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
SELECTOR = re.compile(r"(?:svg )?(text)?((?:\.[\w-]+)*)")
FONT = re.compile(r"([\d.]+px) (.+)")
INITIAL = {  # of SVG 2
    "fill": "#000",
    "stroke": "none",
    "stroke-width": "1",
    "stroke-dasharray": "none",
    "opacity": "1",
    "font-weight": "400",
}
OF_THE_PAGE = {"max-width", "height", "display", "background"}
"""Properties of the <svg> as a box on a page, which do not change the marks in it."""


@dataclass(frozen=True)
class Look:
    """How one mark is painted; lengths in px."""

    fill: str | None
    """Colour as #rgb or #rrggbb; None: not painted. So is `stroke`."""
    stroke: str | None
    stroke_width: float
    dashes: tuple[float, ...]
    """Lengths on and off; empty: solid."""
    opacity: float
    """Opacity of fill and stroke together, as if they were one picture."""
    font_size: float
    bold: bool


@dataclass(frozen=True)
class Rule:
    element: str
    """Empty: any."""
    classes: frozenset[str]
    declared: Mapping[str, str]

    def applies(self, element: str, classes: set[str]) -> bool:
        return self.element in ("", element) and self.classes <= classes


@dataclass(frozen=True)
class Stylesheet:
    rules: tuple[Rule, ...]
    """The weakest first: fewer classes, no element, earlier in the file."""
    fonts: str
    """Families, as CSS lists them."""

    @property
    def classes(self) -> frozenset[str]:
        return frozenset().union(*(rule.classes for rule in self.rules))

    def look(self, element: str, classes: str = "", fill: str = "") -> Look:
        """The look of an SVG element with these classes; fill: its attribute `fill`, which any rule overrides."""
        found = INITIAL | ({"fill": fill} if fill else {})
        for rule in self.rules:
            if rule.applies(element, set(classes.split())):
                found |= rule.declared
        dashes = found["stroke-dasharray"]
        return Look(
            fill=_paint(found["fill"]),
            stroke=_paint(found["stroke"]),
            stroke_width=_px(found["stroke-width"]),
            dashes=() if dashes == "none" else tuple(map(_px, dashes.split())),
            opacity=float(found["opacity"]),
            font_size=_px(found["font-size"]),
            bold=int(found["font-weight"]) >= 600,
        )


@functools.cache
def project_style() -> Stylesheet:
    """templates/style.css."""
    return parse(style())


def parse(css: str) -> Stylesheet:
    """Refuses (AssertionError: the stylesheet is our own) what it does not know: at-rules, selectors, properties."""
    css = DARK.sub("", re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))
    assert "@" not in css, f"only the dark theme is known: {css[css.find('@') :][:60]!r}"
    assert not RULE.sub("", css).strip(), f"not a rule: {RULE.sub('', css).strip()[:60]!r}"
    blocks = [(selectors.strip(), dict(_declarations(body))) for selectors, body in RULE.findall(css)]
    variables = {name: value for _, body in blocks for name, value in body.items() if name.startswith("--")}
    rules = []
    for selectors, body in blocks:
        declared = dict(_resolved(body, variables))
        for selector in (part.strip() for part in selectors.split(",")):
            # A mark inherits what is declared for the page and the picture.
            found = SELECTOR.fullmatch("" if selector in (":root", "svg") else selector)
            assert found, f"unknown selector {selector!r}"
            rules.append(Rule(found[1] or "", frozenset(found[2].split(".")[1:]), declared))
    rules.sort(key=lambda rule: (len(rule.classes), bool(rule.element)))
    (fonts,) = {rule.declared["font-family"] for rule in rules if "font-family" in rule.declared}
    return Stylesheet(tuple(rules), fonts)


def _declarations(body: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, map(str.strip, body.split(";"))):
        name, colon, value = part.partition(":")
        assert colon, f"not a declaration: {part!r}"
        yield name.strip(), value.strip()


def _resolved(body: Mapping[str, str], variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Declarations that change a mark, variables replaced; the shorthand `font` becomes its two parts."""
    for name, value in body.items():
        if name.startswith("--") or name in OF_THE_PAGE:
            continue
        for variable in re.findall(r"var\((.*?)\)", value):
            assert variable in variables, f"{name} names {variable}, which is not defined"
            value = value.replace(f"var({variable})", variables[variable])
        if name == "font":
            found = FONT.fullmatch(value)
            assert found, f"unknown font {value!r}"
            yield from (("font-size", found[1]), ("font-family", found[2]))
        else:
            assert name in INITIAL or name == "font-size", f"unknown property {name!r}"
            yield name, value


def _paint(value: str) -> str | None:
    assert value == "none" or re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", value), f"unknown colour {value!r}"
    return None if value == "none" else value


def _px(value: str) -> float:
    return float(value.removesuffix("px"))
