"""Calibration as tables: how far confidence is from being right, before and after a temperature.

In: `Panel`. Out: `Table`s; a number is the mean over mixtures, its interval over mixtures (t). A temperature was fitted
on other examples than it is judged on; after SFT the pretrained checkpoint's own temperature is judged too: does
calibration survive fine-tuning?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.stats.estimates import mean_estimate, paired_difference
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
GAINS = {
    "own temperature": ("nll_scaled", "nll"),
    "PT's temperature": ("nll_pt_scaled", "nll"),
    "PT's instead of its own": ("nll_pt_scaled", "nll_scaled"),
}
"""Name of a temperature -> the metrics after and before it."""


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
    shown = PLAIN | SCALED | INHERITED | PARTS
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
    form: dict[str, Any] = {"signed": False, "brief_extra": len(shown) - len(PARTS), "caveats": caveats}
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
    """Of the mixtures that were measured, [mixtures]."""
    measured = values[np.isfinite(values)]
    if not len(measured):
        return None
    return MeanTemperature(float(np.exp(np.log(measured).mean())), int(at_edge(measured).sum()), len(measured))


def _mean(values: np.ndarray) -> float | None:
    """Mean over the mixtures that were measured."""
    return mean_estimate(values, "mixtures").value


MAKERS: dict[str, Callable[[Panel], Table]] = {"calibration": calibration_table, "temperature": temperature_table}
