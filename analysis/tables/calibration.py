"""Calibration as tables: how far confidence is from being right, before and after a temperature.

In: `Panel`. Out: `Table`s; a number is the mean over mixtures, its interval over mixtures (t). A temperature was fitted
on other examples than it is judged on; after SFT the pretrained checkpoint's own temperature is judged too: does
calibration survive fine-tuning?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from analysis.panel.panel import STAGES, Panel
from analysis.rendering.table import Column, Row, Table, with_q_values
from analysis.stats.estimates import mean_estimate, paired_difference

PLAIN = {"NLL": "nll", "Brier": "brier", "AUROC": "auroc", "ECE, equal mass": "ece_mass"}
PARTS = {
    "Brier of being right: calibration": "brier_calibration",
    "resolution": "brier_resolution",
    "uncertainty": "brier_uncertainty",
}
SCALED = {"temperature": "temperature", "ECE, own temperature": "ece_scaled", "NLL, own temperature": "nll_scaled"}
INHERITED = {"ECE, PT's temperature": "ece_pt_scaled", "NLL, PT's temperature": "nll_pt_scaled"}
GAINS = {
    "own temperature": ("nll_scaled", "nll"),
    "PT's temperature": ("nll_pt_scaled", "nll"),
    "PT's instead of its own": ("nll_pt_scaled", "nll_scaled"),
}
"""Name of a temperature -> the metrics after and before it."""


def calibration_table(panel: Panel) -> Table:
    """Expected calibration error of each benchmark, and the other views of it."""
    shown = PLAIN | SCALED | INHERITED | PARTS
    columns = tuple(Column(name, "{:.3g}".format) for name in shown)

    def rows() -> Iterator[Row]:
        for scale in panel.scales:
            for stage in STAGES:
                error = panel.matrix(scale, stage, "ece")
                others = [panel.matrix(scale, stage, metric) for metric in shown.values()]
                for b, slug in enumerate(panel.benchmarks):
                    extra = (_mean(values[:, b]) for values in others)
                    keys = scale, stage, panel.category_of[slug], panel.displays[slug]
                    yield Row(keys, mean_estimate(error[:, b], "mixtures"), extra=tuple(extra))

    title = "Calibration: expected calibration error (15 equal bins), means over mixtures"
    keys = "scale stage category benchmark"
    return with_q_values("calibration", title, keys, rows(), columns, signed=False, brief_extra=len(shown) - len(PARTS))


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


def _mean(values: np.ndarray) -> float | None:
    """Mean over the mixtures that were measured."""
    return mean_estimate(values, "mixtures").value


MAKERS: dict[str, Callable[[Panel], Table]] = {"calibration": calibration_table, "temperature": temperature_table}
