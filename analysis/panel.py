"""One study's metrics as matrices [mixtures, benchmarks], with what the study planned and which cells it lacks.

In: metrics of `analysis.metrics`, <runs>/<study>/study.yaml where it exists, configs/mixtures. Out: `Panel`. A cell
that was not measured is NaN; nothing is filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis import paper_numbers
from analysis.estimates import mean_measured
from analysis.held_out import HeldOut, held_out
from analysis.items import Items, load_items
from analysis.metrics import KEYS, read_described, read_metrics
from analysis.paper_numbers import SCALES as PAPER_SCALES
from analysis.run_configs import config_of
from analysis.scores import score_files
from configs.artifacts import fingerprint
from configs.errors import ArtifactError, ConfigError
from configs.layout import metrics_file
from configs.load import BENCHMARKS, load, load_mixture, load_sources
from configs.model_cost import flops_per_token
from configs.schema import StudyConfig, TrainConfig

STAGES = ("PT", "SFT")
OTHER = "Other"
"""Category of a benchmark of which none is known."""
Cube = dict[
    tuple[str, str, str, str], np.ndarray
]  # (scale, stage, metric, normalisation) -> [seeds, mixtures, benchmarks]


@dataclass(frozen=True)
class Design:
    """What Tables 7 to 9 and 11 group mixtures by."""

    web: str
    """Display name of the web source; several are joined by " + "."""
    code_percent: float | None
    """Share of the training tokens from code sources, in per cent; None: unknown."""


@dataclass(frozen=True)
class Milestone:
    """A checkpoint on the way, the last one too, of every mixture's first seed."""

    scale: str
    tokens: int
    accuracy: np.ndarray
    """float64 [mixtures, benchmarks] after pretraining so far; NaN where not measured."""
    cells: tuple[str, ...] = ()
    """Fingerprints of the score files behind each cell, sorted."""


@dataclass(frozen=True)
class Panel:
    study: str
    config: StudyConfig | None
    synthetic: bool
    scales: tuple[str, ...]
    """Smallest first."""
    mixtures: tuple[str, ...]
    benchmarks: tuple[str, ...]
    """Slugs in the order of Table 4."""
    recipe: str
    """The SFT recipe shown."""
    other_recipes: tuple[str, ...]
    other_variants: tuple[str, ...]
    """Prompt variants that were scored but are not shown."""
    seeds: tuple[int, ...]
    average_seeds: bool
    design: dict[str, Design]
    """Mixtures whose configuration is known."""
    values: Cube
    """Last checkpoint of each run, one recipe, one prompt variant; NaN where not measured."""
    stderrs: Cube
    """Standard errors over examples of `values`."""
    examples: int
    """Scored examples behind the shown cells."""
    cells: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """(scale, stage) -> fingerprints of the score files behind each of the shown cells, sorted."""
    milestones: tuple[Milestone, ...] = ()
    """Of each scale, in the order of training."""
    trained: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(scale, stage) -> steps and tokens of the shown checkpoints, as the scores have them."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Slug -> examples of a shown cell; the most, should the stages have been asked different ones."""
    flops_per_token: dict[str, float] = field(default_factory=dict)
    """Of training, forward and backward, at the scales whose model is known; attention causal."""
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    """Of the scales whose run folders are here."""
    beside_paper: bool = True
    """False for numbers that were given, which stand for no scale of the paper."""
    items: Items | None = None
    """Single answers of the shown cells; None where only metrics are known."""
    category_of: dict[str, str] = field(default_factory=paper_numbers.category_of)
    """Slug -> category; by default the paper's, as `displays`."""
    displays: dict[str, str] = field(default_factory=paper_numbers.displays)
    """Slug -> name."""

    def over_seeds(self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum") -> np.ndarray:
        """float64 [seeds, mixtures, benchmarks]; NaN where not measured."""
        empty = np.full((len(self.seeds), len(self.mixtures), len(self.benchmarks)), np.nan)
        return self.values.get((scale, stage, metric, normalisation), empty)

    def matrix(self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum") -> np.ndarray:
        """float64 [mixtures, benchmarks]: the first seed, or with `average_seeds` the mean over those measured."""
        values = self.over_seeds(scale, stage, metric, normalisation)
        return mean_measured(values) if self.average_seeds else values[0]

    def mean_over_seeds(
        self, scale: str, stage: str, metric: str = "accuracy", normalisation: str = "sum"
    ) -> np.ndarray:
        """float64 [mixtures, benchmarks]: mean over the seeds that were measured."""
        return mean_measured(self.over_seeds(scale, stage, metric, normalisation))

    def held_out_loss(self, scale: str) -> np.ndarray:
        """Of `matrix`'s seeds, float64 [mixtures]; NaN where unknown. After pretraining."""
        if scale not in self.held_out:
            return np.full(len(self.mixtures), np.nan)
        loss = self.held_out[scale].loss
        return np.asarray(mean_measured(loss[:, :, None])[:, 0] if self.average_seeds else loss[0])

    def stderr(self, scale: str, stage: str, metric: str = "accuracy") -> np.ndarray:
        """Standard error over examples of one checkpoint, [mixtures, benchmarks]; the mean over seeds."""
        return mean_measured(self.stderrs.get((scale, stage, metric, "sum"), self.over_seeds(scale, stage, metric)))

    @property
    def fingerprints(self) -> dict[tuple[str, str], str]:
        """(scale, stage) -> fingerprint of the score files behind the shown cells."""
        return {key: fingerprint(list(cells)) for key, cells in self.cells.items()}

    def cells_behind(self, words: Iterable[str]) -> list[tuple[str, ...]]:
        """`cells` of the scales and stages among some words, of all where none is named; also those of a checkpoint on
        the way whose tokens are named, e.g. `120,000`."""
        named = set(words)
        scales = [scale for scale in self.scales if scale in named] or self.scales
        stages = [stage for stage in STAGES if stage in named] or STAGES
        found = [self.cells.get((scale, stage), ()) for scale in scales for stage in stages]
        found += [at.cells for at in self.milestones if at.scale in scales and f"{at.tokens:,}" in named]
        return [cells for cells in dict.fromkeys(found) if cells]

    def scores_behind(self, words: Iterable[str]) -> str:
        """Fingerprint of the score files of `cells_behind`."""
        found = {fingerprint(list(cells)) for cells in self.cells_behind(words)}
        return fingerprint(sorted(found)) if found else ""

    def has(self, metric: str) -> bool:
        """Was it measured on any checkpoint?"""
        return any(key[2] == metric and np.isfinite(values).any() for key, values in self.values.items())

    def answers(self, scale: str, stage: str, slug: str, metric: str = "accuracy") -> np.ndarray:
        """float32 [mixtures, examples], of what `matrix` shows: its means over examples; no columns without `items`."""
        over_seeds = self.answers_over_seeds(scale, stage, slug, metric)
        return mean_measured(over_seeds) if self.average_seeds else over_seeds[0]

    def answers_over_seeds(self, scale: str, stage: str, slug: str, metric: str = "accuracy") -> np.ndarray:
        """float32 [seeds, mixtures, examples], NaN for checkpoints that were not scored."""
        known = self.items.values if self.items else {}
        empty = np.full((len(self.seeds), len(self.mixtures), 0), np.nan, np.float32)
        return known.get((scale, stage, slug, metric), empty)

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.category_of.values()))

    def members(self, category: str) -> list[int]:
        """Columns of the category's benchmarks."""
        return [i for i, slug in enumerate(self.benchmarks) if self.category_of[slug] == category]

    def web_blocks(self) -> tuple[int, ...] | None:
        """Number of each mixture's web source; None where one is unknown or all are the same."""
        webs = [self.design[mixture].web for mixture in self.mixtures if mixture in self.design]
        names = sorted(set(webs))
        return tuple(map(names.index, webs)) if len(webs) == len(self.mixtures) and len(names) > 1 else None

    def paper_scale(self, scale: str) -> str | None:
        """The paper's scale that this one stands for: the smallest for 240M, the largest for 1B, if there are two."""
        if not self.beside_paper:
            return None
        by_name = {name.lower(): name for name in PAPER_SCALES}
        if scale.lower() in by_name:
            return by_name[scale.lower()]
        if any(other.lower() in by_name for other in self.scales):
            return None
        if scale == self.scales[0]:
            return PAPER_SCALES[0]
        return PAPER_SCALES[1] if scale == self.scales[-1] else None

    def paper_number(self, scale: str, *key: str) -> float | None:
        """One of `paper_numbers.numbers`; "{}" in the key is the paper's scale that `scale` stands for."""
        paper = self.paper_scale(scale)
        return None if paper is None else paper_numbers.numbers().get(tuple(part.format(paper) for part in key))

    def planned(self) -> list[tuple[str, str, str, int]]:
        """(scale, stage, mixture, seed) of every final checkpoint that the shown recipe needs.

        Without study.yaml: the seeds that each mixture has scores of, at every scale and stage.
        """
        if self.config:
            runs = [(m, seed) for m in self.mixtures for seed in self.config.seeds_of(m)]
        else:
            scored = np.any(
                [np.isfinite(cube).any(axis=2) for cube in self.values.values()], axis=0
            )  # [seeds, mixtures]
            runs = [(self.mixtures[m], self.seeds[s]) for m, s in np.argwhere(scored.T)]
        return [(scale, stage, m, s) for scale in self.scales for stage in STAGES for m, s in runs]

    def coverage(self) -> tuple[int, int]:
        """(measured, planned) benchmark evaluations of final checkpoints."""
        planned = self.planned()
        done = 0
        for scale, stage, mixture, seed in planned:
            values = self.over_seeds(scale, stage)[self.seeds.index(seed), self.mixtures.index(mixture)]
            done += int(np.isfinite(values).sum())
        return done, len(planned) * len(self.benchmarks)


def studies(runs: Path) -> list[str]:
    """Studies under `runs` that have scores or metrics, newest first."""

    def newest(study: str) -> float:
        files = [*score_files(runs, study), metrics_file(runs, study)]
        return max((f.stat().st_mtime for f in files if f.is_file()), default=0.0)

    names = [p.name for p in runs.iterdir() if p.is_dir()] if runs.is_dir() else []
    dated = sorted(((newest(name), name) for name in names), reverse=True)
    return [name for time, name in dated if time > 0]


def load_panel(runs: Path, study: str, recipe: str | None = None, average_seeds: bool = False) -> Panel:
    """Read a study. `recipe`: SFT recipe to show (default: the study's first).

    Raises ArtifactError for missing or damaged files and ConfigError for an unknown recipe.
    """
    metrics = read_metrics(runs, study)
    path = runs / study / "study.yaml"
    config = load(StudyConfig, path) if path.is_file() else None

    scored = tuple(sorted(set(metrics.loc[metrics["stage"] == "SFT", "recipe"])))
    recipes = tuple(dict.fromkeys((*(config.recipes if config else ()), *scored)))
    if recipe is not None and recipe not in recipes:
        raise ConfigError(
            f"no SFT recipe {recipe!r}", where=f"study {study}", valid=", ".join(recipes) or "none scored"
        )
    shown = recipe or next((r for r in recipes if r in scored), recipes[0] if recipes else "")

    metrics = every = metrics[(metrics["stage"] == "PT") | (metrics["recipe"] == shown)]
    # All runs of a scale and stage end at the same step; one that was scored at a milestone only is not yet measured.
    metrics = metrics[metrics["step"] == metrics.groupby(["scale", "stage"])["step"].transform("max")]
    # For each stage: fine-tuned checkpoints may have been asked in chat, others never are.
    variants = metrics.groupby(["benchmark", "stage"])["variant"].unique()
    plain = {cell: min(found, key=_variant_rank) for cell, found in variants.items()}
    metrics = _asked(metrics, plain)

    if config:
        for key, known in (("scale", tuple(config.scales)), ("mixture", config.mixtures)):
            if unknown := sorted(set(metrics[key]) - set(known)):
                raise ArtifactError(
                    f"there are scores of {key} {unknown[0]!r}, which it lacks", where=path, valid=", ".join(known)
                )
    seeds = tuple(sorted({*metrics["seed"].astype(int), *(config.seeds if config else ())}))
    mixtures = config.mixtures if config else tuple(sorted(set(metrics["mixture"])))
    wanted = (config.benchmarks or BENCHMARKS) if config else set(metrics["benchmark"])
    benchmarks = tuple(slug for slug in BENCHMARKS if slug in wanted)
    categories, groups = read_described(runs, study)
    own = {slug: category or OTHER for slug, category in categories.items() if slug not in BENCHMARKS}
    benchmarks += tuple(sorted(own, key=lambda slug: (own[slug], slug)))
    names = {slug: paper_numbers.displays().get(slug, slug) for slug in benchmarks}
    named = {slug: paper_numbers.category_of().get(slug, own.get(slug, OTHER)) for slug in benchmarks}
    shown_as: dict[str, Any] = {"category_of": named, "displays": names} if own else {}
    scales = tuple(config.scales) if config else _by_size(metrics)
    models = {scale: config_of(runs, study, config, scale, None, mixtures, seeds) for scale in scales}
    losses = {scale: held_out(runs, study, scale, mixtures, seeds) for scale in scales}
    return Panel(
        study=study,
        config=config,
        synthetic=config.synthetic if config else (runs / study / "declared.json").is_file(),
        scales=scales,
        mixtures=mixtures,
        benchmarks=benchmarks,
        recipe=shown,
        other_recipes=tuple(r for r in recipes if r != shown),
        other_variants=tuple(sorted({v for cell, found in variants.items() for v in found if v != plain[cell]})),
        seeds=seeds,
        average_seeds=average_seeds,
        design={m: d for m in mixtures if (d := _design(m, groups.get(m, ""))) is not None},
        values=_cube(metrics, "value", seeds, mixtures, benchmarks),
        stderrs=_cube(metrics, "stderr", seeds, mixtures, benchmarks),
        examples=int(metrics.loc[(metrics["metric"] == "accuracy") & (metrics["normalisation"] == "sum"), "n"].sum()),
        items=load_items(runs, study, metrics[list(KEYS)], seeds, mixtures),
        cells={
            (str(scale), str(stage)): tuple(sorted(set(rows["fingerprint"])))
            for (scale, stage), rows in metrics.groupby(["scale", "stage"])
        },
        milestones=_milestones(_asked(every, plain), seeds, mixtures, benchmarks),
        trained={
            (str(scale), str(stage)): (int(rows["step"].max()), int(rows["tokens"].max()))
            for (scale, stage), rows in metrics.groupby(["scale", "stage"])
        },
        sizes={str(slug): int(n) for slug, n in metrics.groupby("benchmark")["n"].max().items()},
        flops_per_token={
            scale: flops_per_token(known.model).causal
            for scale, known in models.items()
            if isinstance(known, TrainConfig)
        },
        held_out={scale: known for scale, known in losses.items() if known is not None},
        beside_paper=not categories,
        **shown_as,
    )


def _asked(metrics: pd.DataFrame, variant_of: dict[Any, str]) -> pd.DataFrame:
    """Rows in the prompt variant shown; variant_of: by benchmark and stage."""
    cells = zip(metrics["benchmark"], metrics["stage"], metrics["variant"], strict=True)
    return metrics[np.array([variant_of.get((slug, stage)) == variant for slug, stage, variant in cells], dtype=bool)]


def _milestones(
    metrics: pd.DataFrame, seeds: tuple[int, ...], mixtures: tuple[str, ...], benchmarks: tuple[str, ...]
) -> tuple[Milestone, ...]:
    wanted = (metrics["stage"] == "PT") & (metrics["metric"] == "accuracy") & (metrics["normalisation"] == "sum")
    found = []
    for names, rows in metrics[wanted].groupby(["scale", "tokens"]):
        scale, tokens = cast(tuple[str, int], names)
        (cube,) = _cube(rows, "value", seeds, mixtures, benchmarks).values()
        found.append(Milestone(scale, int(tokens), cube[0], tuple(sorted(set(rows["fingerprint"])))))
    return tuple(found)


def _cube(
    metrics: pd.DataFrame, column: str, seeds: tuple[int, ...], mixtures: tuple[str, ...], benchmarks: tuple[str, ...]
) -> Cube:
    axes = [pd.Index(axis).get_indexer(pd.Index(metrics[name])) for name, axis in _axes(seeds, mixtures, benchmarks)]
    wanted = np.all([axis >= 0 for axis in axes], axis=0)  # a study may have scored benchmarks that it no longer lists
    number = metrics[column].to_numpy(dtype=float)
    cube: Cube = {}
    for names, rows in metrics.groupby(["scale", "stage", "metric", "normalisation"]).indices.items():
        key = cast(tuple[str, str, str, str], names)
        rows = rows[wanted[rows]]
        cube[key] = np.full((len(seeds), len(mixtures), len(benchmarks)), np.nan)
        cube[key][tuple(axis[rows] for axis in axes)] = number[rows]
    return cube


def _axes(*axes: tuple[object, ...]) -> list[tuple[str, list[object]]]:
    return [(name, list(axis)) for name, axis in zip(("seed", "mixture", "benchmark"), axes, strict=True)]


def _variant_rank(variant: str) -> tuple[bool, int, bool, str]:
    """The plain prompt first: without chat template, fewest shots, lm-evaluation-harness's prompts."""
    shots = re.search(r"(\d+)shot", variant)
    return variant.endswith("/chat"), int(shots.group(1)) if shots else 0, not variant.startswith("lm_eval/"), variant


def _by_size(metrics: pd.DataFrame) -> tuple[str, ...]:
    """Without study.yaml: the paper's names in order, else the scale that saw more tokens is the larger."""
    tokens = metrics[metrics["stage"] == "PT"].groupby("scale")["tokens"].max()
    paper = [name.lower() for name in PAPER_SCALES]

    def rank(scale: str) -> tuple[int, int, str]:
        place = paper.index(scale.lower()) if scale.lower() in paper else -1
        return place, int(tokens.get(scale, 0)), scale

    return tuple(sorted(set(metrics["scale"]), key=rank))


def _design(mixture: str, group: str) -> Design | None:
    """From configs/mixtures; a mixture that is unknown here has the group it was given, or None."""
    if group:
        return Design(group, None)
    try:
        weights, sources = load_mixture(mixture).weights, load_sources().sources
    except ConfigError:
        return None
    web = [sources[s].display for s, weight in weights.items() if sources[s].kind == "web" and weight > 0]
    code = sum(weight for s, weight in weights.items() if sources[s].kind == "code")
    return Design(" + ".join(sorted(web)), round(100 * code, 3))
