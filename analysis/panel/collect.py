"""Metrics of the scores that are there now, and which planned cells have none.

In: <runs>/<study>, finished or not; its plan is study.yaml. Out: metrics.parquet (`analysis.scores.metrics`), and by
name every checkpoint, those on the way too, that lacks a benchmark. Nothing is filled in.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from configs.artifacts import atomic_file, read_json
from configs.errors import ConfigError
from configs.layout import RunFolder, StudyFolder, stage_name

if TYPE_CHECKING:
    import pandas as pd

INCOMPLETE = 5
"""Exit code where a planned cell has no score; the metrics are written all the same."""


class Checkpoint(NamedTuple):
    """A checkpoint of a study by the columns that scores and metrics have of it."""

    scale: str
    stage: str
    recipe: str
    """Empty for PT."""
    mixture: str
    seed: int
    step: int

    @property
    def folder(self) -> str:
        """Folder of its run, below <runs>/<study>."""
        return RunFolder(StudyFolder(Path(), "study"), *self.run).name

    @property
    def run(self) -> tuple[str, str, int, str]:
        """Scale, mixture, seed and stage as folders are named."""
        return self.scale, self.mixture, self.seed, stage_name(self.recipe)


@dataclass(frozen=True)
class Planned:
    checkpoint: Checkpoint
    """A last one that was not scored has step 0 where only its training will know the step."""
    last: bool
    """Whether it is the last one of its training."""


@dataclass(frozen=True)
class Collected:
    metrics: Path
    planned: int
    """Cells: a checkpoint on a benchmark."""
    scored: int
    """Of those planned."""
    unplanned: int
    """Scored cells besides."""
    missing: tuple[tuple[str, str], ...]
    """(checkpoints, the benchmarks that they lack) in words."""

    @property
    def complete(self) -> bool:
        return self.scored == self.planned


def collect(study: StudyFolder, out: Path | None = None) -> Collected:
    """out: a copy of metrics.parquet. Raises ArtifactError where no score is there, or one is damaged."""
    from analysis.scores.metrics import read_metrics

    if out is not None and out.suffix != ".parquet":
        raise ConfigError(f"metrics are written as Parquet, not {out.name}", hint=f"--out {out.stem}.parquet")
    frame = read_metrics(study)
    metrics = study.metrics
    if out is not None:
        with atomic_file(out) as stream:
            stream.write(metrics.read_bytes())
    scored = scored_cells(frame)
    plan, displays = planned(study, scored)
    cells = {(one.checkpoint, slug) for one in plan for slug in displays}
    found = {(checkpoint, slug) for checkpoint, slugs in scored.items() for slug in slugs}
    lacking = [(one, [slug for slug in displays if slug not in scored.get(one.checkpoint, ())]) for one in plan]
    missing = format_missing([(one, slugs) for one, slugs in lacking if slugs], plan, displays)
    return Collected(out or metrics, len(cells), len(cells & found), len(found - cells), tuple(missing))


def scored_cells(metrics: pd.DataFrame) -> dict[Checkpoint, set[str]]:
    """Checkpoint -> slugs that it has an accuracy of."""
    plain = metrics[(metrics["metric"] == "accuracy") & (metrics["normalisation"] == "sum")]
    scored: dict[Checkpoint, set[str]] = defaultdict(set)
    columns = plain[[*Checkpoint._fields, "benchmark"]].drop_duplicates()
    for scale, stage, recipe, mixture, seed, step, slug in columns.itertuples(index=False, name=None):
        scored[Checkpoint(scale, stage, recipe, mixture, int(seed), int(step))].add(slug)
    return dict(scored)


def planned(study: StudyFolder, scored: Mapping[Checkpoint, set[str]]) -> tuple[list[Planned], dict[str, str]]:
    """(every checkpoint that study.yaml wants scored, slug -> name of the benchmarks).

    Scores without study.yaml: every model that is scored anywhere, at every scale and stage, and what else is scored.
    """
    from analysis.paper.numbers import displays
    from configs.load import load, load_benchmarks
    from configs.schema import StudyConfig
    from configs.workflow.units import study_units

    path = study.config
    if not path.is_file():
        slugs = sorted(set().union(*scored.values()))
        return _grid(scored), {slug: displays().get(slug, slug) for slug in slugs}
    config = load(StudyConfig, path)
    plan = []
    for unit in study_units(config, study.runs):
        if unit.kind != "score":
            continue
        assert unit.folder is not None and unit.run is not None
        run = unit.folder
        head = run.scale, run.stage_column, run.recipe, run.mixture, run.seed
        step = unit.step
        if step is None:  # passes over an SFT set are known once its size is
            steps = [one.step for one in scored if one[:5] == head]
            known = read_json(run.done).get("step") if run.done.is_file() else max(steps, default=0)
            step = int(known) if run.recipe else unit.run.steps
        plan.append(Planned(Checkpoint(*head, step), unit.step is None))
    return plan, {spec.slug: spec.display for spec in load_benchmarks(config.benchmarks)}


def _grid(scored: Mapping[Checkpoint, set[str]]) -> list[Planned]:
    last: dict[tuple[str, str, str], int] = defaultdict(int)
    for one in scored:
        last[one[:3]] = max(last[one[:3]], one.step)
    models = sorted({(one.mixture, one.seed) for one in scored})
    grid = [Checkpoint(*head, *model, last[head]) for head, model in itertools.product(last, models)]
    return [*(Planned(one, True) for one in grid), *(Planned(one, False) for one in scored if one not in grid)]


# ---------------------------------------------------------------------------------------------- format


def format_benchmarks(names: Sequence[str], of: int) -> str:
    """Benchmarks without a score: by name, or all of them."""
    return f"all {of}" if len(names) == of else ", ".join(names)


def format_missing(
    lacking: Sequence[tuple[Planned, Sequence[str]]], plan: Sequence[Planned], displays: Mapping[str, str]
) -> list[tuple[str, str]]:
    """A line a checkpoint, and one for all of a scale and stage where all lack the same."""
    recipes = len({one.checkpoint.recipe for one in plan} - {""})
    groups: dict[str, list[Planned]] = defaultdict(list)
    for one in plan:
        groups[_name(one, recipes, alone=False)].append(one)
    missing: dict[str, dict[Planned, str]] = defaultdict(dict)
    for one, slugs in lacking:
        words = format_benchmarks([displays[slug] for slug in slugs], len(displays))
        missing[_name(one, recipes, alone=False)][one] = words
    lines = []
    for group, mine in missing.items():
        if len(set(mine.values())) == 1 and len(mine) == len(groups[group]) > 1:
            lines.append((f"{group}, all {len(mine)} checkpoints", next(iter(mine.values()))))
        else:
            lines += [(_name(one, recipes), words) for one, words in mine.items()]
    return lines


def _name(one: Planned, recipes: int, *, alone: bool = True) -> str:
    """`1b SFT V2P0 seed 0`, or without mixture and seed; recipes: how many the study has."""
    at = one.checkpoint
    recipe = f" ({at.recipe})" if recipes > 1 and at.recipe else ""
    model = f" {at.mixture} seed {at.seed}" if alone else ""
    return f"{at.scale} {at.stage}{recipe}{model}" + ("" if one.last else f" step {at.step:,}")


def format_collected(found: Collected) -> str:
    """What `study.py collect` prints."""
    besides = f"; {found.unplanned:,} more are scored, which the study does not list" if found.unplanned else ""
    head = f"{found.metrics}\n{found.scored:,} of {found.planned:,} planned cells are scored{besides}"
    if found.complete:
        return head
    lines = [f"{name}: {words}" for name, words in found.missing]
    return "\n  ".join([f"{head}\nmissing {found.planned - found.scored:,}:", *lines])
