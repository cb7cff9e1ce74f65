"""One benchmark's figures, against bins and means that are counted here one by one."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from analysis.figures.benchmarks import accuracy_figure, diagram, reliability_figure, reliability_overview
from analysis.panel.panel import Panel
from configs.drawing.scene import Figure


@pytest.fixture
def panel(demo_panel: Panel) -> Panel:
    return demo_panel


def tips(figure: Figure) -> list[str]:
    return [mark["tip"] for mark in figure.scene.marks if mark["tip"]]


@pytest.mark.parametrize("metric", ["confidence", "confidence_scaled"])
def test_a_diagram_holds_every_answer_of_every_mixture_once(panel: Panel, metric: str) -> None:
    found = diagram(panel, "mini_m", "SFT", "sciq", metric)
    assert found is not None
    bins: dict[int, list[tuple[float, float]]] = {}
    sure, right = (panel.answers_over_seeds("mini_m", "SFT", "sciq", name)[0] for name in (metric, "accuracy"))
    for mixture in range(len(panel.mixtures)):  # the first seed, as the tables show it
        for p, hit in zip(sure[mixture].tolist(), right[mixture].tolist(), strict=True):
            bins.setdefault(next(k for k in range(15) if p <= np.float32((k + 1) / 15)), []).append((p, hit))
    assert sum(map(len, bins.values())) == 9 * 30
    for k in range(15):
        mine = np.array(bins.get(k, [])).reshape(-1, 2)
        assert found.count[0, k] == len(mine)
        if len(mine):
            assert [found.confidence[0, k], found.accuracy[0, k]] == pytest.approx(mine.mean(axis=0).tolist(), abs=1e-6)


def test_a_page_shows_each_bin_and_the_tables_error(panel: Panel) -> None:
    figure = reliability_figure(panel, "sciq")
    assert figure is not None
    found = diagram(panel, "mini_s", "PT", "sciq", "confidence")
    assert found is not None
    k = int(found.count[0].argmax())
    wanted = f"PT, as scored: confidence {found.confidence[0, k]:.2f}, accuracy {found.accuracy[0, k]:.2f}, "
    assert f"{wanted}{found.count[0, k]:.0f} answers" in tips(figure)
    assert sum(int(re.findall(r"(\d+) answers", tip)[0]) for tip in tips(figure)) == 2 * 4 * 9 * 30
    b = panel.benchmarks.index("sciq")
    errors = [panel.matrix("mini_s", "PT", name)[:, b].mean() for name in ("ece", "ece_scaled")]
    words = [mark["words"] for mark in figure.scene.marks if mark["kind"] == "text"]
    assert f"ECE {errors[0]:.3f} → {errors[1]:.3f}" in words


def test_the_overview_has_every_benchmark_and_a_figure_for_each_scale(panel: Panel) -> None:
    figures = [reliability_overview(panel, scale) for scale in panel.scales]
    assert [figure.name for figure in figures if figure] == ["reliability_mini_s", "reliability_mini_m"]
    assert figures[0] is not None
    said = tips(figures[0])
    assert len(said) == 40 and said[0].startswith("HellaSwag, mini_s, PT: ECE 0.")


def test_without_answers_there_is_no_diagram(panel: Panel) -> None:
    alone = replace(panel, items=None)
    assert reliability_figure(alone, "sciq") is None and reliability_overview(alone, "mini_s") is None
    assert diagram(alone, "mini_s", "PT", "sciq", "confidence") is None


def test_accuracies_stand_where_they_were_measured(panel: Panel) -> None:
    scene = accuracy_figure(panel, "hellaswag").scene
    dots = [mark for mark in scene.marks if mark["kind"] == "dot" and mark["tip"].startswith("V")]
    values = {(s, t): panel.matrix(s, t)[:, 0] for s in panel.scales for t in ("PT", "SFT")}
    assert len(dots) == 4 * 9
    for scale in panel.scales:  # one axis a scale: pixels are a straight line of the values
        mine = [mark for mark in dots if f", {scale}, " in mark["tip"]]
        shown = [float(mark["tip"].split(": ")[1].split(" [")[0]) for mark in mine]
        truth = [v for m in range(9) for v in (values[scale, "PT"][m], values[scale, "SFT"][m])]
        assert shown == pytest.approx(truth, abs=6e-4)
        assert np.corrcoef([mark["x"] for mark in mine], truth)[0, 1] > 0.99999
    stderr = panel.stderr("mini_s", "PT")[0, 0]
    value = values["mini_s", "PT"][0]
    assert dots[0]["tip"] == f"V1P0, mini_s, PT: {value:.3f} [{value - 1.96 * stderr:.3f}, {value + 1.96 * stderr:.3f}]"
    gap = replace(panel, values={key: cube.copy() for key, cube in panel.values.items()})
    gap.values["mini_s", "PT", "accuracy", "sum"][0, 3, 0] = np.nan
    left = [
        mark for mark in accuracy_figure(gap, "hellaswag").scene.marks if mark["tip"].startswith("V2P0, mini_s, PT")
    ]
    assert left == []
