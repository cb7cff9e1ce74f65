"""The specification curve, and Figure 15: what each benchmark makes of more code.

In: `Panel`. Out: `Figure`s.
"""

from __future__ import annotations

import itertools

import numpy as np

from analysis.claims.multiverse import UNKNOWN, SpecificationCurve, specification_curve
from analysis.panel.panel import Panel
from analysis.protocols.data_effects import code_over_mixtures, code_percents
from analysis.rendering.formats import format_signed
from configs.drawing.scene import WIDTH, Axis, Figure, Scene

NAMES = 300
ROW = 19
ANSWERS = {1: ("holds", "pos3"), 0: ("does not hold", "neg3"), UNKNOWN: ("cannot be judged", "empty")}
COLUMNS = 5


def specification_figure(panel: Panel) -> Figure | None:
    """A row for each claim, a place for each specification; None for numbers that were given."""
    if not panel.beside_paper:
        return None
    curve = specification_curve(panel)
    groups = [(s.normalisation, s.reading) for s in curve.specifications]
    left, right, top = NAMES + 10, WIDTH - 60, 56
    x = Axis(0, len(groups), left, right)
    scene = Scene(WIDTH, top + ROW * len(curve.outcomes) + 40, "Which claims hold under which choices of analysis")
    start = 0
    for (normalisation, reading), members in itertools.groupby(groups):
        end = start + len(list(members))
        scene.text((x(start) + x(end)) / 2, 30, normalisation, "small strong", "middle")
        joint = "joint" if reading == "confidence_joint" else "softmax"
        scene.text((x(start) + x(end)) / 2, 45, joint, "soft small", "middle")
        scene.line(x(start), top - 6, x(start), top + ROW * len(curve.outcomes), "zero")
        start = end
    for k, outcome in enumerate(curve.outcomes):
        y = top + ROW * k
        scene.text(NAMES, y + 13, f"{outcome.claim.name}: {outcome.claim.title}", "small", "end")
        # Equal neighbours become one bar: a page of single specifications would hold thousands of marks.
        for answer, run in itertools.groupby(enumerate(curve.answers[:, k]), key=lambda item: int(item[1])):
            places = [place for place, _ in run]
            words, cls = ANSWERS[answer]
            first, last = places[0], places[-1]
            ends = " to ".join(_format_specification(curve, end) for end in dict.fromkeys((first, last)))
            tip = f"{outcome.claim.name} {words} in {len(places)} specifications, from {ends}"
            scene.rect(x(first), y + 1, x(last + 1) - x(first), ROW - 3, cls=cls, tip=tip)
        share = "not judged" if outcome.share is None else f"{100 * outcome.share:.0f} %"
        scene.text(right + 6, y + 13, share, "small")
    bottom = top + ROW * len(curve.outcomes) + 24
    for k, (words, cls) in enumerate(ANSWERS.values()):
        scene.rect(left + 170 * k, bottom - 10, 26, 12, cls=cls)
        scene.text(left + 32 + 170 * k, bottom, words, "small")
    return Figure(
        "specifications",
        "How often does each claim of the paper hold?",
        "One place a specification: normalisation of accuracy, reading of confidence, and nothing, one benchmark or "
        "one mixture left out (first place of a block: nothing). At the right, the share of those that can be judged.",
        scene,
    )


def _format_specification(curve: SpecificationCurve, place: int) -> str:
    s = curve.specifications[place]
    return f"{s.normalisation}, {s.reading}" + (f", without {s.without}" if s.without else "")


def code_figure(panel: Panel) -> Figure | None:
    """Figure 15: accuracy after PT against code per cent, a plot for each benchmark; None where no share is known."""
    percents = code_percents(panel)
    known = np.isfinite(percents)
    if len(np.unique(percents[known])) < 2:
        return None
    wide, high = WIDTH / COLUMNS, 128
    lines = -(-len(panel.benchmarks) // COLUMNS)
    scene = Scene(WIDTH, high * lines + 24, "Accuracy after pretraining against code per cent, by benchmark")
    found = {scale: code_over_mixtures(panel, panel.matrix(scale, "PT").T) for scale in panel.scales}
    for b, slug in enumerate(panel.benchmarks):
        left, top = wide * (b % COLUMNS), high * (b // COLUMNS)
        values = np.stack([panel.matrix(scale, "PT")[:, b] for scale in panel.scales])
        there = np.isfinite(values) & known
        scene.text(left + 34, top + 13, panel.displays[slug], f"strong {panel.hue(panel.category_of[slug])}")
        if not there.any():
            scene.text(left + 34, top + 40, "not measured", "soft small")
            continue
        low, up = float(values[there].min()), float(values[there].max())
        x = Axis(percents[known].min() - 3, percents[known].max() + 3, left + 34, left + wide - 14)
        y = Axis(low - 0.05 * (up - low) - 1e-3, up + 0.05 * (up - low) + 1e-3, top + high - 26, top + 32)
        for tick in y.ticks(3):
            scene.line(x.start, y(tick), x.end, y(tick), "grid")
            scene.text(x.start - 4, y(tick) + 4, f"{tick:.2f}".lstrip("0"), "soft small", "end")
        for percent in np.unique(percents[known]):
            scene.text(x(percent), top + high - 12, f"{percent:g} %", "soft small", "middle")
        words = []
        for s, scale in enumerate(panel.scales):
            e = found[scale][b].estimate
            words.append("" if e.value is None else format_signed(e.value))
            for m in np.flatnonzero(there[s]):
                tip = f"{panel.displays[slug]}, {panel.mixtures[m]}, {scale}: {values[s, m]:.3f}"
                # Scales stand beside each other, since all mixtures of one code share lie on one line.
                beside = 5 * (s - (len(panel.scales) - 1) / 2)  # px
                scene.dot(x(percents[m]) + beside, y(values[s, m]), 2.8, f"end hue{s % 3}", tip)
        scene.text(left + 34, top + 27, "r " + ", ".join(words), "soft small")
    for s, scale in enumerate(panel.scales):
        scene.dot(44 + 120 * s, high * lines + 10, 3.6, f"end hue{s % 3}")
        scene.text(54 + 120 * s, high * lines + 14, scale, "small")
    return Figure(
        "figure15",
        "What more code does to each benchmark (Figure 15)",
        "Accuracy after pretraining against code per cent, a dot a mixture; r over mixtures, one for each scale. More "
        "code comes with more curated and less web text, so none of the three is told from the others.",
        scene,
    )
