"""Metrics of the scores that are there now, and which planned cells have none.

In: <runs>/<study>, finished or not; its plan is study.yaml. Out: metrics.parquet (`analysis.scores.metrics`), and by
name every checkpoint, those on the way too, that lacks a benchmark. Nothing is filled in.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from analysis.paper.numbers import displays
from analysis.scores.metrics import read_metrics
from configs.artifacts import atomic_file, read_json
from configs.errors import ConfigError
from configs.layout import RunFolder, StudyFolder, stage_name
from configs.load import load, load_benchmarks
from configs.schema import StudyConfig
from configs.workflow.units import study_units

INCOMPLETE = 5
"""Exit code where a planned cell has no score; the metrics are written all the same."""


class CheckpointKey(NamedTuple):
    """The columns by which scores and metrics identify a checkpoint of a study."""

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
    checkpoint: CheckpointKey
    """A last one that was not scored has step 0 where only its training will know the step."""
    last: bool
    """Whether the checkpoint is the last one of its training."""


@dataclass(frozen=True)
class Collected:
    metrics: Path
    planned: int
    """Planned cells; a cell is a checkpoint on a benchmark."""
    scored: int
    """Planned cells that have a score."""
    unplanned: int
    """Scored cells that are not planned."""
    missing: tuple[tuple[str, str], ...]
    """(checkpoints, the benchmarks that they lack), as text."""

    @property
    def complete(self) -> bool:
        return self.scored == self.planned


def collect(study: StudyFolder, out: Path | None = None) -> Collected:
    """out: a copy of metrics.parquet. Raises ArtifactError where no score is there, or one is damaged."""
    if out is not None and out.suffix != ".parquet":
        raise ConfigError(f"metrics are written as Parquet, not {out.name}", hint=f"--out {out.stem}.parquet")
    scored = scored_cells(read_metrics(study))
    if out is not None:
        with atomic_file(out) as stream:
            stream.write(study.metrics.read_bytes())
    plan, displays = plan_checkpoints(study, scored)
    keys = {one.checkpoint for one in plan}
    num_scored = sum(len(scored.get(key, set()) & displays.keys()) for key in keys)
    unplanned = sum(map(len, scored.values())) - num_scored
    missing = {one: [slug for slug in displays if slug not in scored.get(one.checkpoint, ())] for one in plan}
    lines = format_missing({one: slugs for one, slugs in missing.items() if slugs}, plan, displays)
    return Collected(out or study.metrics, len(keys) * len(displays), num_scored, unplanned, tuple(lines))


def scored_cells(metrics: pd.DataFrame) -> dict[CheckpointKey, set[str]]:
    """Checkpoint -> slugs of the benchmarks that it has an accuracy of."""
    plain = metrics[(metrics["metric"] == "accuracy") & (metrics["normalisation"] == "sum")]
    cells = plain.groupby(list(CheckpointKey._fields), sort=False)["benchmark"]
    return {CheckpointKey(*cast(tuple[Any, ...], key)): set(slugs) for key, slugs in cells}


def plan_checkpoints(
    study: StudyFolder, scored: Mapping[CheckpointKey, set[str]]
) -> tuple[list[Planned], dict[str, str]]:
    """(every checkpoint that study.yaml wants scored, slug -> name of the benchmarks).

    Scores without study.yaml: every model that is scored anywhere, at every scale and stage, and what else is scored.
    """
    if not study.config.is_file():
        slugs = sorted(set().union(*scored.values()))
        return _grid(scored), {slug: displays().get(slug, slug) for slug in slugs}
    config = load(StudyConfig, study.config)
    plan = []
    for unit in study_units(config, study.runs):
        if unit.kind == "score":
            assert unit.folder is not None and unit.run is not None
            run, step = unit.folder, unit.step
            head = run.scale, run.stage_column, run.recipe, run.mixture, run.seed
            if step is None:
                step = _last_step(run, head, scored) if run.recipe else unit.run.steps
            plan.append(Planned(CheckpointKey(*head, step), unit.step is None))
    return plan, {spec.slug: spec.display for spec in load_benchmarks(config.benchmarks)}


def _last_step(run: RunFolder, head: tuple[object, ...], scored: Mapping[CheckpointKey, set[str]]) -> int:
    """The last step of a fine-tuning, or 0 before it is known: passes over an SFT set have no length until it is made.

    head: the fields of its checkpoints' keys, without the step.
    """
    if run.done.is_file():
        return int(read_json(run.done)["step"])
    return max((one.step for one in scored if one[:-1] == head), default=0)


def _grid(scored: Mapping[CheckpointKey, set[str]]) -> list[Planned]:
    last: dict[tuple[str, str, str], int] = defaultdict(int)
    for one in scored:
        last[one[:3]] = max(last[one[:3]], one.step)
    models = sorted({(one.mixture, one.seed) for one in scored})
    grid = [CheckpointKey(*head, *model, last[head]) for head, model in itertools.product(last, models)]
    return [*(Planned(one, True) for one in grid), *(Planned(one, False) for one in scored if one not in grid)]


# ---------------------------------------------------------------------------------------------- format


def format_benchmarks(names: Sequence[str], of: int) -> str:
    """Benchmarks without a score: by name, or all of them."""
    return f"all {of}" if len(names) == of else ", ".join(names)


def format_missing(
    missing: Mapping[Planned, Sequence[str]], plan: Sequence[Planned], displays: Mapping[str, str]
) -> list[tuple[str, str]]:
    """A line for each checkpoint, or one for all of a scale and stage where all lack the same benchmarks."""
    recipes = len({one.checkpoint.recipe for one in plan} - {""})
    sizes = Counter(_name(one, recipes, "") for one in plan)
    groups: dict[str, dict[Planned, str]] = defaultdict(dict)
    for one, slugs in missing.items():
        groups[_name(one, recipes, "")][one] = format_benchmarks([displays[slug] for slug in slugs], len(displays))
    lines = []
    for group, mine in groups.items():
        if len(set(mine.values())) == 1 and len(mine) == sizes[group] > 1:
            lines.append((f"{group}, all {len(mine)} checkpoints", next(iter(mine.values()))))
        else:
            for one, benchmarks in mine.items():
                model = f" {one.checkpoint.mixture} seed {one.checkpoint.seed}"
                lines.append((_name(one, recipes, model), benchmarks))
    return lines


def _name(one: Planned, recipes: int, model: str) -> str:
    """`1b SFT V2P0 seed 0`; recipes: how many the study has; model: mixture and seed, empty for a whole group."""
    at = one.checkpoint
    recipe = f" ({at.recipe})" if recipes > 1 and at.recipe else ""
    return f"{at.scale} {at.stage}{recipe}{model}" + ("" if one.last else f" step {at.step:,}")


def format_collected(found: Collected) -> str:
    """The lines that `study.py collect` prints."""
    besides = f"; {found.unplanned:,} more are scored, which the study does not list" if found.unplanned else ""
    head = f"{found.metrics}\n{found.scored:,} of {found.planned:,} planned cells are scored{besides}"
    if found.complete:
        return head
    lines = [f"{name}: {benchmarks}" for name, benchmarks in found.missing]
    return "\n  ".join([f"{head}\nmissing {found.planned - found.scored:,}:", *lines])
