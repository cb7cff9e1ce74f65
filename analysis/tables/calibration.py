"""Calibration as tables: how far confidence is from being right, before and after a correction.

In: `Panel`. Out: `Table`s; a number is the mean over mixtures, its interval over mixtures (t); where methods are
compared the points are benchmarks. A temperature or a label prior was fitted on other examples than it is judged on;
after SFT the pretrained checkpoint's own temperature is judged too: does calibration survive fine-tuning?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.correlations import groups
from analysis.protocols.data_effects import share_confounds, source_confounds
from analysis.rendering.formats import format_interval
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import Estimate, mean_estimate, mean_measured, mean_over_benchmarks, paired_difference
from analysis.stats.resampling import TOLERANCE
from analysis.stats.temperature import EDGES, at_edge

PLAIN = {"NLL": "nll", "Brier": "brier", "AUROC": "auroc", "ECE, equal mass": "ece_mass"}
PARTS = {
    "Brier of being right: calibration": "brier_calibration",
    "resolution": "brier_resolution",
    "uncertainty": "brier_uncertainty",
}
TEMPERATURE = "temperature, geometric mean"
SCALED = {TEMPERATURE: "temperature", "ECE, own temperature": "ece_scaled", "NLL, own temperature": "nll_scaled"}
INHERITED = {"ECE, PT's temperature": "ece_pt_scaled", "NLL, PT's temperature": "nll_pt_scaled"}
FURTHER = {
    "NLL, common temperature": "nll_common_scaled",
    "ECE, common temperature": "ece_common_scaled",
    "Brier, own temperature": "brier_scaled",
    "Brier, common temperature": "brier_common_scaled",
    "accuracy": "accuracy",
    "accuracy, label prior": "accuracy_prior_corrected",
    "NLL, label prior": "nll_prior_corrected",
    "ECE, label prior": "ece_prior_corrected",
    "Brier, label prior": "brier_prior_corrected",
}
"""Shown in files alone; `comparison_table` has their means."""
GAINS = {
    "own temperature": ("nll_scaled", "nll"),
    "PT's temperature": ("nll_pt_scaled", "nll"),
    "PT's instead of its own": ("nll_pt_scaled", "nll_scaled"),
}
"""Name of a temperature -> the metrics after and before it."""

GROUPINGS = {"web source": "web", "code per cent": "code"}
MEASURES = {"NLL": "nll", "Brier": "brier", "ECE": "ece", "accuracy": "accuracy"}
COMPARISONS = {
    "own temperature − as scored": ("{}_scaled", "{}"),
    "common temperature − as scored": ("{}_common_scaled", "{}"),
    "own − common temperature": ("{}_scaled", "{}_common_scaled"),
    "label prior − as scored": ("{}_prior_corrected", "{}"),
    "label prior − own temperature": ("{}_prior_corrected", "{}_scaled"),
}
"""Two ways to correct log-probabilities -> the metrics of a measure after each."""
METHODS = (
    "own temperature: one for each benchmark and checkpoint, drawn towards the common one by as much as is best on the "
    "fitting examples; common temperature: one for each checkpoint, to which its benchmarks count alike",
    "label prior: the mean log-probability of each candidate over the fitting examples is subtracted; only where all "
    "examples have the same candidates. It needs no true answers and may change answers; a temperature needs them and "
    "changes none",
    "every example is judged by what was fitted on the other four folds, the same folds for all methods",
    "ECE of few examples lies above 0 for a calibrated model too",
)


class MeanTemperature(NamedTuple):
    """Mean over mixtures on the scale of logarithms, on which temperatures are fitted."""

    value: float
    at_edge: int
    """Mixtures whose temperature is at the edge of the search: a better one may lie beyond."""
    of: int

    def __str__(self) -> str:
        return f"{self.value:.3g}" + (f" ({self.at_edge} of {self.of} at the edge)" if self.at_edge else "")


def calibration_table(panel: Panel) -> Table:
    """Expected calibration error of each benchmark, and the other views of it."""
    brief = PLAIN | SCALED | INHERITED
    shown = brief | PARTS | FURTHER
    columns = tuple(Column(name, str if name == TEMPERATURE else "{:.3g}".format) for name in shown)

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            for stage in STAGES:
                error = panel.matrix(scale, stage, "ece")
                others = {name: panel.matrix(scale, stage, metric) for name, metric in shown.items()}
                for b, slug in enumerate(panel.benchmarks):
                    extra = (
                        mean_temperature(values[:, b]) if name == TEMPERATURE else _mean(values[:, b])
                        for name, values in others.items()
                    )
                    keys = scale, stage, panel.category_of[slug], panel.displays[slug]
                    yield Row(keys, mean_estimate(error[:, b], "mixtures"), extra=tuple(extra))

    title = "Calibration: expected calibration error (15 equal bins), means over mixtures"
    keys, made = "scale stage category benchmark", list(rows())
    known = [value for row in made for value in row.extra if isinstance(value, MeanTemperature)]
    beyond = sum(mean.at_edge for mean in known)
    low, high = EDGES
    edges = f"at the edge: temperatures are searched between {low:.3g} and {high:.3g}, and {beyond} of"
    count = sum(mean.of for mean in known)
    caveats = (Note(f"{edges} {count} lie at an end, so that a better one may lie beyond"),) if beyond else ()
    form: dict[str, Any] = {"signed": False, "brief_extra": len(brief), "caveats": caveats}
    return with_q_values("calibration", title, keys, made, columns, **form)


def temperature_table(panel: Panel) -> Table:
    """Change of the likelihood of the true answers by a temperature, in nats an example; below 0 it helps."""

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            for stage in STAGES:
                for what, (after, before) in GAINS.items():
                    if stage == "PT" and "PT's" in what:
                        continue
                    gain = panel.matrix(scale, stage, after) - panel.matrix(scale, stage, before)
                    for b, slug in enumerate(panel.benchmarks):
                        yield Row((scale, stage, what, panel.displays[slug]), paired_difference(gain[:, b], "mixtures"))

    title = "Temperature: change of the NLL of true answers, fitted on other examples (nats an example, below 0 helps)"
    return with_q_values("temperature", title, "scale stage temperature benchmark", rows(), digits=3)


def mean_temperature(values: np.ndarray) -> MeanTemperature | None:
    """The mean over the mixtures that were measured; values: [mixtures]."""
    measured = values[np.isfinite(values)]
    if not len(measured):
        return None
    return MeanTemperature(float(np.exp(np.log(measured).mean())), int(at_edge(measured).sum()), len(measured))


def comparison_table(panel: Panel) -> Table:
    """Task-specific against common temperature, and either beside a label prior: paired over benchmarks."""
    columns = (Column("before", "{:.3f}".format), Column("after", "{:.3f}".format), Column("better on"))

    def rows() -> Iterator[Row]:
        for scale, stage, (measure, metric) in product(panel.scales, STAGES, MEASURES.items()):
            for comparison, names in COMPARISONS.items():
                after, before = (panel.matrix(scale, stage, name.format(metric)) for name in names)
                if panel.has(names[0].format(metric)) and panel.has(names[1].format(metric)):
                    yield _compared((scale, stage, measure, comparison), after, before)

    title = "Calibration methods: changes by a temperature and by a label prior, means over benchmarks"
    keys = "scale stage measure comparison"
    notes = (*map(Note, METHODS), Note("below 0 the first of the two is better; for accuracy above 0"))
    return with_q_values("calibration_methods", title, keys, rows(), columns, digits=3, brief_extra=3, caveats=notes)


def _compared(keys: tuple[str, ...], after: np.ndarray, before: np.ndarray) -> Row:
    """after, before: [mixtures, benchmarks]; a benchmark's difference is the mean over the mixtures that have both."""
    both = np.isfinite(after) & np.isfinite(before)
    late, early = (mean_measured(np.where(both, side, np.nan)) for side in (after, before))
    known = np.isfinite(late)
    estimate = paired_difference((late - early)[known], "benchmarks")
    if not known.any():
        return Row(keys, estimate)
    gain = (late - early)[known] * (1 if "accuracy" in keys else -1)
    better = f"{(gain > TOLERANCE).sum()} of {known.sum()}"
    return Row(keys, estimate, extra=(float(early[known].mean()), float(late[known].mean()), better))


def by_data_table(panel: Panel) -> Table:
    """Calibration error of the mixtures of each web source and each code per cent, by category and over all."""
    scaled = Column("after own temperature", _unsigned)

    def rows() -> Iterator[Row]:
        for scale, stage, (grouping, by) in product(panel.scales, STAGES, GROUPINGS.items()):
            error, corrected = (panel.matrix(scale, stage, metric) for metric in ("ece", "ece_scaled"))
            for group, mixtures in groups(panel, by).items():
                mine = [panel.mixtures.index(mixture) for mixture in mixtures]
                for category in (*panel.categories, "all"):
                    columns = slice(None) if category == "all" else panel.members(category)
                    plain, after = (
                        mean_estimate(mean_over_benchmarks(values[:, columns])[mine], "mixtures")
                        for values in (error, corrected)
                    )
                    extra = (None if after.value is None else after,)
                    yield Row((scale, stage, grouping, group, category), plain, extra=extra, brief=category == "all")

    title = "Expected calibration error by web source and by code per cent, means over benchmarks and mixtures"
    notes = tuple(map(Note, (*source_confounds(panel), *share_confounds(panel))))
    keys = "scale stage by group category"
    form: dict[str, Any] = {"signed": False, "digits": 3, "caveats": notes}
    return with_q_values("calibration_by_data", title, keys, rows(), (scaled,), **form)


def _unsigned(e: Estimate) -> str:
    return f"{e.value:.3f} {format_interval(e.ends, '{:.3f}'.format)}".strip()


def _mean(values: np.ndarray) -> float | None:
    """Mean over the mixtures that were measured."""
    return mean_estimate(values, "mixtures").value


MAKERS: dict[str, Callable[[Panel], Table]] = {
    "calibration": calibration_table,
    "temperature": temperature_table,
    "calibration_methods": comparison_table,
    "calibration_by_data": by_data_table,
}
