"""The report's sentences on calibration have the numbers of its tables."""

from __future__ import annotations

from dataclasses import replace

from analysis.rendering.table import Column, Row, Table
from analysis.report.calibration import calibration_answers
from analysis.stats.estimates import Estimate

COLUMNS = (Column("before"), Column("after"), Column("better on"))


def methods(q: float) -> Table:
    """Two rows that differ in their stage."""
    rows = [
        Row(("1b", stage, "NLL", "own − common temperature"), Estimate(v, low=v - 0.1, high=v + 0.1), q=q, extra=extra)
        for stage, v, extra in (("PT", 0.5, (1.0, 1.5, "0 of 20")), ("SFT", -0.25, (1.5, 1.25, "17 of 20")))
    ]
    return Table("calibration_methods", "", ("scale", "stage", "measure", "comparison"), COLUMNS, tuple(rows))


def test_sentences_are_of_the_last_scale_and_stage_and_name_the_measure(demo_tables: dict[str, Table]) -> None:
    table = replace(demo_tables["calibration_methods"], rows=())
    assert list(calibration_answers({"calibration_methods": table})) == [] == list(calibration_answers({}))
    (line,) = calibration_answers({"calibration_methods": methods(0.001)})
    assert line.startswith("At 1b after SFT, a temperature for each benchmark instead of one for all changes")
    assert line.endswith("held-out NLL by −0.250 [−0.350, −0.150] (better on 17 of 20 benchmarks).")
    (line,) = calibration_answers({"calibration_methods": methods(0.2)})
    assert "which chance may make" in line


def test_a_study_has_all_answers(demo_tables: dict[str, Table]) -> None:
    own, prior, by_data = calibration_answers(demo_tables)
    rows = {row.keys: row for row in demo_tables["calibration_methods"].rows}
    for line, keys in (
        (own, ("ECE", "own − common temperature")),
        (prior, ("accuracy", "label prior − as scored")),
        (prior, ("ECE", "label prior − own temperature")),
    ):
        row = rows["mini_m", "SFT", *keys]
        assert f"{keys[0]} by {row.estimate.value:+.3f} [".replace("-", "−") in line
        assert ("which chance may make" in line) or row.q is None or row.q < 0.05
    rows = {row.keys: row for row in demo_tables["calibration_by_data"].rows}
    for grouping, group, words in (("web source", "DCLM", "DCLM"), ("code per cent", "35", "35 % code")):
        assert f"{words} {rows['mini_m', 'SFT', grouping, group, 'all'].estimate.value:.3f} [" in by_data
