"""The table of calibration: a mean temperature is taken where temperatures are compared, on logarithms."""

from __future__ import annotations

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.panel.panel import Panel
from analysis.stats.temperature import EDGES
from analysis.tables.calibration import TEMPERATURE, MeanTemperature, calibration_table


def with_temperatures(values: np.ndarray) -> Panel:
    """One benchmark; values: [mixtures]."""
    cube = {("240m", stage, metric): np.full((len(values), 1), 0.3) for stage in ("PT", "SFT") for metric in ("ece",)}
    return panel_of(cube | {("240m", "PT", "temperature"): values[:, None]}, ("piqa",))


def test_the_mean_of_temperatures_is_geometric() -> None:
    table = calibration_table(with_temperatures(np.array([0.25, 1.0, 4.0, 64.0, np.nan])))
    pt, sft = (table.values(row)[TEMPERATURE] for row in table.rows)
    assert pt.value == pytest.approx(64 ** (1 / 4)) and (pt.at_edge, pt.of) == (0, 4)
    assert sft is None and str(pt) == "2.83" and table.caveats == ()
    halved = calibration_table(with_temperatures(1 / np.array([0.25, 1.0, 4.0, 64.0, np.nan])))
    assert halved.values(halved.rows[0])[TEMPERATURE].value == pytest.approx(1 / pt.value)


def test_temperatures_at_the_edge_of_the_search_are_flagged() -> None:
    table = calibration_table(with_temperatures(np.array([EDGES[0], 1.0, EDGES[1], 2.0])))
    pt = table.values(table.rows[0])[TEMPERATURE]
    assert (pt.at_edge, pt.of) == (2, 4) and table.texts(table.rows[0])[4] == f"{pt.value:.3g} (2 of 4 at the edge)"
    (note,) = table.caveats
    assert "between 0.125 and 152, and 2 of 4 lie at an end" in str(note)
    assert str(MeanTemperature(1.0, 0, 9)) == "1" and not calibration_table(panel_of(random_cube(0))).caveats
