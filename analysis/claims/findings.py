"""Every claim of the paper as a predicate: findings 1 to 13, implications 1 to 3, the five of C.3.7, one of C.4.3.

In: `Evidence`, a study under one specification (`View`) or the paper's own tables. Out: whether the claim holds, or
None where it cannot be judged because a number that it needs is missing. The first line of each docstring is the
predicate; what follows says where the paper is vague and which reading was taken.

Words stand for the same thresholds throughout: a correlation is high above 0.5 (Findings 1 and 2), weak below 0.3
(Finding 4) and an alignment strong above 0.7 (Table 6); what the paper gives as an observed number without a threshold
("0.24 to 0.50") is held to its direction only. "Most" is more than half. PT and SFT as in the paper; r is Pearson's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.claims.evidence import Evidence, above, below, holds
from analysis.claims.view import QUANTITIES
from analysis.panel.panel import STAGES
from analysis.paper.numbers import CATEGORIES
from analysis.protocols.correlations import PROTOCOLS
from analysis.stats.estimates import mean_measured

HIGH = 0.5
WEAK = 0.3
STRONG = 0.7
MOST = 0.5
COMPARABLE = 1.0
"""Percentage points; section C.4.3 calls differences of up to 0.9 comparable, and one of 0.8 slight."""


# ---------------------------------------------------------------------------------------------- 4.1 transfer


def finding_1(view: Evidence) -> bool | None:
    """Mean accuracy r of Science and of Commonsense > 0.5 and Semantic's below both, at both scales.

    Figure 1a.
    """
    science, commonsense, semantic = (view.mean_transfer("accuracy", c) for c in ("Science", "Commonsense", "Semantic"))
    return holds(above(science, HIGH), above(commonsense, HIGH), below(semantic, np.minimum(science, commonsense)))


def finding_2(view: Evidence) -> bool | None:
    """Small scale: confidence r of Commonsense, Science > 0.5 and > accuracy's, NLI's < 0.5; all r > 0, most > 0.5.

    The paper's numbers are of the small scale ("especially at 240M"). Its "79 % exceeding 0.5" is an observation, read
    as most; its "weak" NLI (0.21) as not high. Benchmarks without a correlation are not counted.
    """
    parts = []
    for category in ("Commonsense", "Science"):
        accuracy, confidence = (view.mean_transfer(metric, category)[0] for metric in ("accuracy", "confidence"))
        parts += [above(confidence, HIGH), above(confidence, accuracy)]
    every = view.transfers("confidence")[0]
    known = every[np.isfinite(every)]
    most = above(mean_measured(above(known, HIGH)), MOST)
    return holds(*parts, below(view.mean_transfer("confidence", "NLI")[0], HIGH), above(known, 0), most)


def finding_3(view: Evidence) -> bool | None:
    """Small scale: confidence r of benchmark pairs i < j within PT and within SFT correlate over pairs with r > 0.5.

    "Highly correlated" is read as above 0.5. The p < 1e-32 is not judged: pairs of the same nine mixtures are not
    independent. Neither is the "slight" strengthening of the block of Commonsense and Science.
    """
    return holds(above(view.structure()[0], HIGH))


# ---------------------------------------------------------------------------------------------- 4.2 reliability


def finding_4(view: Evidence) -> bool | None:
    """Accuracy r of WiC and of MultiRC < 0.3 at both scales; WinoGrande's and MNLI's < 0 at the small one."""
    wic, multirc, winogrande, mnli = (
        view.transfer("accuracy", slug) for slug in ("wic", "multirc", "winogrande", "mnli")
    )
    return holds(below(wic, WEAK), below(multirc, WEAK), below(winogrande[0], 0), below(mnli[0], 0))


def finding_5(view: Evidence) -> bool | None:
    """Accuracy coherence of Commonsense and of Semantic < 0 at both scales within PT, within SFT and across stages.

    "Consistently" is read as in every protocol of Figure 5.
    """
    categories = ("Commonsense", "Semantic")
    return holds(*(below(view.coherence("accuracy", p, c), 0) for p in PROTOCOLS for c in categories))


def finding_6(view: Evidence) -> bool | None:
    """Small scale, PT: mean accuracy r of WinoGrande with the rest of Commonsense < 0, of WSC with Semantic < 0.15.

    WinoGrande's number is printed for the small scale; WSC's without a scale, read as the same one.
    """
    return holds(below(view.partners("winogrande")[0], 0), below(view.partners("wsc")[0], 0.15))


# ---------------------------------------------------------------------------------------------- 4.3 scaling


def finding_7(view: Evidence) -> bool | None:
    """Mean r over all benchmarks: accuracy's is higher at the large scale, confidence's at the small one."""
    (small, large), (small_confidence, large_confidence) = (
        view.mean_transfer(metric) for metric in ("accuracy", "confidence")
    )
    return holds(above(large, small), above(small_confidence, large_confidence))


def finding_8(view: Evidence) -> bool | None:
    """Accuracy coherence is higher at the large scale: SFT and across stages in most categories, Science in all three.

    "Less negative or positive" is read as higher, "most" as more than two of the four categories, under each of the two
    protocols.
    """
    higher = {}
    for protocol in PROTOCOLS:
        small, large = np.stack([view.coherence("accuracy", protocol, c) for c in CATEGORIES], axis=1)
        higher[protocol] = above(large, small)
    science = [higher[protocol][CATEGORIES.index("Science")] for protocol in PROTOCOLS]
    return holds(*science, *(above(higher[protocol].mean(), MOST) for protocol in ("SFT", "cross")))


def finding_9(view: Evidence) -> bool | None:
    """Confidence coherence of Commonsense and of Science: > 0.5 at the small scale, lower but > 0 at the large one.

    The paper prints one number a scale and not its protocol: read as the mean of the three of Figure 5. "Strong" is
    read as above 0.5, "substantially" as lower.
    """
    parts = []
    for category in ("Commonsense", "Science"):
        small, large = view.mean_coherence("confidence", category)
        parts += [above(small, HIGH), below(large, small), above(large, 0)]
    return holds(*parts)


def finding_10(view: Evidence) -> bool | None:
    """Confidence coherence is higher at the large scale in NLI, and lower in each of the other three categories.

    Mean of the three protocols, as in Finding 9. Only one of the "twofold" anomalies is named in the paper.
    """
    parts = []
    for category in CATEGORIES:
        small, large = view.mean_coherence("confidence", category)
        parts.append(above(large, small) if category == "NLI" else below(large, small))
    return holds(*parts)


# ---------------------------------------------------------------------------------------------- 4.4 alignment


def finding_11(view: Evidence) -> bool | None:
    """Alignment after PT: Science > 0.7, Commonsense and Semantic < 0.3 ("weak or negative"), at both scales.

    The approximate values (0.8, -0.1, -0.2) are read through the thresholds of Table 6 and of Finding 4.
    """
    return holds(*_aligned(view, "PT"))


def finding_12(view: Evidence) -> bool | None:
    """Alignment after PT and after SFT: Science > 0.7, Commonsense and Semantic < 0.3, at both scales.

    "Persists" is read as Figure 6 shows it: Finding 11 at both stages. Table 10's correlation over mixtures is another
    question, judged for NLI in C.3.7, item 4.
    """
    return holds(*_aligned(view, "PT"), *_aligned(view, "SFT"))


def finding_13(view: Evidence) -> bool | None:
    """FineWeb-Edu - RefinedWeb after PT, small then large scale: NLI accuracy +, -, alignment -, +; Science +, +; -, -.

    NLI gains accuracy and loses alignment at the small scale, the other way round at the large one; Science gains
    accuracy and loses alignment at both. Signs of Table 7.
    """
    (nli, nli_large), (aligned, aligned_large) = (view.web_effect(quantity, "NLI") for quantity in QUANTITIES)
    science, science_aligned = (view.web_effect(quantity, "Science") for quantity in QUANTITIES)
    reversal = above(nli, 0), below(nli_large, 0), below(aligned, 0), above(aligned_large, 0)
    return holds(*reversal, above(science, 0), below(science_aligned, 0))


# ---------------------------------------------------------------------------------------------- 5 implications


def implication_1(view: Evidence) -> bool | None:
    """Accuracy r > 0.5 at both scales: HellaSwag, PIQA, COPA, Science (mean); < 0.3 at either: WiC, WSC, MultiRC, MNLI.

    "Weak or negative" is read as section C.2 defines unreliable: at either scale.
    """
    high = [view.transfer("accuracy", slug) for slug in ("hellaswag", "piqa", "copa")]
    weak = [view.transfer("accuracy", slug) for slug in ("wic", "wsc", "multirc", "mnli")]
    science = view.mean_transfer("accuracy", "Science")
    return holds(above([*high, science], HIGH), below(np.min(weak, axis=1), WEAK))


def implication_2(view: Evidence) -> bool | None:
    """Mean confidence r over all benchmarks > 0.5 at the small scale and < 0.5 at the large one.

    "Transfers reliably" is read as high, "degrades substantially" as no longer high.
    """
    small, large = view.mean_transfer("confidence")
    return holds(above(small, HIGH), below(large, HIGH))


def implication_3(view: Evidence) -> bool | None:
    """FineWeb-Edu - RefinedWeb in NLI after PT has opposite signs at the two scales, in accuracy and in alignment.

    Finding 13's reversal in either direction, since what is concluded is that the small scale misleads.
    """
    effects = [view.web_effect(quantity, "NLI") for quantity in QUANTITIES]
    return holds(above(np.max(effects, axis=1), 0), below(np.min(effects, axis=1), 0))


# ---------------------------------------------------------------------------------------------- C.3.7


def detail_1(view: Evidence) -> bool | None:
    """Science alignment > 0.7 in every mixture, at both scales and after both stages.

    "Across all data mixtures and scales" is read to the letter. The paper prints means of web sources only (Table 8);
    the worst mixture is no better than the least of them.
    """
    return holds(*(above(view.lowest_alignment(stage, "Science"), STRONG) for stage in STAGES))


def detail_2(view: Evidence) -> bool | None:
    """Alignment of Commonsense and of Semantic < 0.3 ("weak or negative") at both scales and after both stages.

    That temperature scaling would help is advice, which the paper did not test.
    """
    categories = ("Commonsense", "Semantic")
    return holds(*(below(view.alignment(stage, c), WEAK) for stage in STAGES for c in categories))


def detail_3(view: Evidence) -> bool | None:
    """FineWeb-Edu - RefinedWeb after PT changes by more between scales than its size at the large one (mean |.|).

    "Dramatically different" is read as: for accuracy and for alignment, over the four categories of Table 7, the
    effect at the small scale is a worse forecast of that at the large one than no effect at all.
    """
    parts = []
    for quantity in QUANTITIES:
        small, large = np.stack([view.web_effect(quantity, category) for category in CATEGORIES], axis=1)
        parts.append(above(np.abs(large - small).mean(), np.abs(large).mean()))
    return holds(*parts)


def detail_4(view: Evidence) -> bool | None:
    """NLI: over mixtures, the alignment after PT and that after SFT have r < 0 at both scales.

    Table 10.
    """
    return holds(below(view.persistence("NLI"), 0))


def detail_5(view: Evidence) -> bool | None:
    """Large scale, PT, highest - lowest code percent: alignment rises and accuracy falls, in Commonsense and in NLI.

    "May" is judged where section C.3.5 reports the trade-off.
    """
    parts = []
    for category in ("Commonsense", "NLI"):
        accuracy, alignment = (view.code_effect(quantity, category)[1] for quantity in QUANTITIES)
        parts += [below(accuracy, 0), above(alignment, 0)]
    return holds(*parts)


# ---------------------------------------------------------------------------------------------- C.4.3


def web_sources(view: Evidence) -> bool | None:
    """Large scale, SFT: in most categories DCLM's mean accuracy is not more than 1 point below FineWeb-Edu's.

    "Competitive across categories" and "can match" are read as matching or exceeding in most of the four, a match as
    Table 11's text uses the word comparable. At equal code percent, as every difference between web sources.
    """
    gaps = np.array([view.source_gap(category)[1] for category in CATEGORIES])
    return holds(above((1 - below(gaps, -COMPARABLE)).mean(), MOST))


# ---------------------------------------------------------------------------------------------- parts, registry


def _aligned(view: Evidence, stage: str) -> list[np.ndarray]:
    """The parts of Finding 11 for one stage."""
    science, *others = (view.alignment(stage, category) for category in ("Science", "Commonsense", "Semantic"))
    return [above(science, STRONG), below(others, WEAK)]


@dataclass(frozen=True)
class Claim:
    name: str
    title: str
    judge: Callable[[Evidence], bool | None]

    @property
    def predicate(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.judge) or "").split("\n")[0]


CLAIMS = (
    Claim("Finding 1", "Transfer depends on the category", finding_1),
    Claim("Finding 2", "Confidence persists more than accuracy", finding_2),
    Claim("Finding 3", "Structure of confidence persists", finding_3),
    Claim("Finding 4", "Some benchmarks are unreliable", finding_4),
    Claim("Finding 5", "Benchmarks of a category compete", finding_5),
    Claim("Finding 6", "Black sheep within categories", finding_6),
    Claim("Finding 7", "Inverse scaling of transfer", finding_7),
    Claim("Finding 8", "From competition to synergy", finding_8),
    Claim("Finding 9", "Coherence of confidence degrades", finding_9),
    Claim("Finding 10", "NLI scales the other way", finding_10),
    Claim("Finding 11", "Alignment depends on the category", finding_11),
    Claim("Finding 12", "Alignment persists through SFT", finding_12),
    Claim("Finding 13", "Educational filter: trade-off by scale", finding_13),
    Claim("Implication 1", "Prefer benchmarks that transfer", implication_1),
    Claim("Implication 2", "Recalibrate larger models", implication_2),
    Claim("Implication 3", "Small scales mislead curation", implication_3),
    Claim("C.3.7 item 1", "Science is well calibrated", detail_1),
    Claim("C.3.7 item 2", "Commonsense and Semantic are not", detail_2),
    Claim("C.3.7 item 3", "Educational filter depends on scale", detail_3),
    Claim("C.3.7 item 4", "SFT reorganises NLI's calibration", detail_4),
    Claim("C.3.7 item 5", "Code trades accuracy for calibration", detail_5),
    Claim("C.4.3", "DCLM matches or exceeds FineWeb-Edu", web_sources),
)
