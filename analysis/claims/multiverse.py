"""How often each claim of the paper holds when a study is analysed in every defensible way.

In: `Panel`. Out: one answer for each specification (normalisation of accuracy, reading of confidence, one benchmark or
one mixture left out) and claim, for a specification curve; the outcome of each claim; and a `Table` of outcomes.

A share is how robust a claim is to choices of analysis, not a probability: specifications share their data, and many
leave out what a claim does not look at (Steegen et al., 2016; Simonsohn et al., 2020).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analysis.claims.evidence import SCALES, PublishedEvidence
from analysis.claims.findings import CLAIMS, Claim
from analysis.claims.view import View
from analysis.panel.panel import STAGES, Panel
from analysis.paper.numbers import SCALES as PAPER_SCALES
from analysis.paper.numbers import displays
from analysis.protocols.matrices import METRICS
from analysis.rendering.formats import join_names
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import Estimate
from configs.load import BENCHMARKS

NORMALISATIONS = ("sum", "char", "token", "byte", "pmi")
READINGS = ("confidence", "confidence_joint")
CONFIDENT = "sum"
"""Normalisation of the answers that confidence is of: alignment is of these answers in every specification."""
UNKNOWN = -1
"""Answer of a claim that cannot be judged; 0: it does not hold, 1: it holds."""


@dataclass(frozen=True)
class Specification:
    """One way to analyse a study; the default is the reference."""

    normalisation: str = "sum"
    """Normalisation of the scores whose largest is the model's answer."""
    reading: str = "confidence"
    """`confidence`: softmax over the candidates; `confidence_joint`: probability of the answer's text."""
    without: str = ""
    """The benchmark or mixture that is left out."""


@dataclass(frozen=True)
class Outcome:
    """One claim over all specifications. Shares are of the specifications judged, None where none is."""

    claim: Claim
    judged: int
    share: float | None
    reference: bool | None
    """Whether the claim holds in the reference specification."""
    by_normalisation: dict[str, float | None]
    by_reading: dict[str, float | None]
    flipped_by: tuple[str, ...]
    """Benchmarks and mixtures without which alone the answer of the reference turns round."""
    published: bool | None
    """Whether the claim holds by the paper's own tables."""


@dataclass(frozen=True, eq=False)
class SpecificationCurve:
    """A specification curve."""

    specifications: tuple[Specification, ...]
    """All specifications; the reference comes first."""
    answers: np.ndarray
    """int8 [specifications, CLAIMS]: 1 holds, 0 does not, `UNKNOWN`."""

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return [self._outcome(claim, answers) for claim, answers in zip(CLAIMS, self.answers.T, strict=True)]

    def _outcome(self, claim: Claim, answers: np.ndarray) -> Outcome:
        given = dict(zip(self.specifications, answers.tolist(), strict=True))
        reference = given[Specification()]
        turned = 1 - reference if reference != UNKNOWN else None
        plain = {Specification(without=s.without): s.without for s in self.specifications}

        def shares(field: str) -> dict[str, float | None]:
            choices = dict.fromkeys(getattr(s, field) for s in self.specifications)
            return {c: _share([a for s, a in given.items() if getattr(s, field) == c]) for c in choices}

        return Outcome(
            claim=claim,
            judged=int((answers != UNKNOWN).sum()),
            share=_share(answers.tolist()),
            reference=_known(reference),
            by_normalisation=shares("normalisation"),
            by_reading=shares("reading"),
            flipped_by=tuple(name for specification, name in plain.items() if given[specification] == turned),
            published=claim.judge(PublishedEvidence()),
        )


def views(panel: Panel) -> Iterator[tuple[Specification, View]]:
    """Every specification with its view, the reference first; choices of which nothing was measured are left out."""
    computed: dict[tuple[object, ...], np.ndarray] = {}
    for normalisation in NORMALISATIONS:
        for reading in READINGS:
            whole = replace(_view(panel, normalisation, reading), computed=computed)
            specification = Specification(normalisation, reading)
            measured = np.isfinite(whole.values).any(axis=(1, 2, 3, 4)).all()
            if not measured and specification != Specification():
                continue
            yield specification, whole
            for name in (*whole.benchmarks, *whole.mixtures):
                yield Specification(normalisation, reading, name), whole.without(name)


@functools.lru_cache(maxsize=1)  # a table and a figure are made of it
def specification_curve(panel: Panel) -> SpecificationCurve:
    """Every claim in every specification. The smallest and the largest scale stand for the paper's two."""
    specifications, answers = [], []
    for specification, view in views(panel):
        specifications.append(specification)
        given = (claim.judge(view) for claim in CLAIMS)
        answers.append([UNKNOWN if answer is None else int(answer) for answer in given])
    return SpecificationCurve(tuple(specifications), np.array(answers, dtype=np.int8))


def multiverse(panel: Panel) -> list[Outcome]:
    """The outcome of every claim, in the order of `CLAIMS`."""
    return specification_curve(panel).outcomes


def multiverse_table(panel: Panel) -> Table:
    """One row a claim; its number is the share of the specifications in which it holds. None for given numbers."""

    def rows() -> Iterator[Row]:
        for outcome in multiverse(panel) if panel.beside_paper else ():
            reason = "" if outcome.judged else "cannot be judged in any specification"
            estimate = Estimate(outcome.share, n=outcome.judged, points="specifications", reason=reason)
            extra = (
                outcome.reference,
                outcome.published,
                tuple(displays().get(name, name) for name in outcome.flipped_by),
                outcome.by_normalisation,
                outcome.by_reading,
            )
            yield Row((outcome.claim.name, outcome.claim.predicate), estimate, extra=extra)

    title = "Multiverse: in what share of all specifications does each claim of the paper hold?"
    extra = (
        Column("in the reference", _format_answer, "not judged"),
        Column("in the paper's tables", _format_answer, "not judged"),
        Column("flipped by leaving out", join_names),
        Column("by normalisation", _format_shares),
        Column("by confidence", _format_shares),
    )
    caveats = (
        "every specification counts alike, those too that leave out what a claim never looks at",
        "alignment is of the answers that confidence is of, which are those by sum: normalisation does not vary it",
        "a claim that two things differ, or that a sign changes, holds often where there is nothing but noise",
    )
    notes = tuple(map(Note, caveats))
    return with_q_values(
        "multiverse", title, "claim predicate", rows(), extra, signed=False, brief_extra=3, caveats=notes
    )


MAKERS: dict[str, Callable[[Panel], Table]] = {"multiverse": multiverse_table}


def _view(panel: Panel, normalisation: str, reading: str) -> View:
    """Nothing left out; a scale that the panel lacks is NaN."""
    shape = (len(METRICS), len(SCALES), len(STAGES), len(panel.mixtures), len(panel.benchmarks))
    values, answered = np.full(shape, np.nan), np.full(shape[1:], np.nan)
    for s, scale in _roles(panel):
        for t, stage in enumerate(STAGES):
            values[0, s, t] = panel.matrix(scale, stage, "accuracy", normalisation)
            values[1, s, t] = panel.matrix(scale, stage, reading)
            answered[s, t] = panel.matrix(scale, stage, "accuracy", CONFIDENT)
    # The claims are of the paper's benchmarks.
    kept = [slug in BENCHMARKS for slug in panel.benchmarks]
    slugs = tuple(itertools.compress(panel.benchmarks, kept))
    designs = tuple(panel.design.get(m) for m in panel.mixtures)
    return View(values[..., kept], panel.mixtures, slugs, designs, answered[..., kept])


def _roles(panel: Panel) -> list[tuple[int, str]]:
    """(place in `SCALES`, scale) of the smallest and the largest; one alone has the role of its counterpart."""
    if len(panel.scales) > 1:
        return [(0, panel.scales[0]), (1, panel.scales[-1])]
    return [(int(panel.paper_scale(scale) == PAPER_SCALES[1]), scale) for scale in panel.scales]


def _share(answers: list[int]) -> float | None:
    judged = [answer for answer in answers if answer != UNKNOWN]
    return sum(judged) / len(judged) if judged else None


def _known(answer: int) -> bool | None:
    return None if answer == UNKNOWN else bool(answer)


def _format_answer(answer: bool) -> str:
    return "yes" if answer else "no"


def _format_shares(shares: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'not judged' if s is None else f'{100 * s:.0f} %'}" for name, s in shares.items())
