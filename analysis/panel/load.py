"""Studies on disk, each as a `Panel`.

In: metrics of `analysis.scores.metrics`, <runs>/<study>/study.yaml where it exists, configs/mixtures. Out: `Panel`: the
last checkpoint of each run, one SFT recipe, the plainest prompt that a benchmark was scored with.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd

from analysis.panel.held_out import held_out
from analysis.panel.items import load_items
from analysis.panel.panel import Cube, Design, Milestone, Panel
from analysis.panel.run_configs import config_of
from analysis.paper import numbers as paper_numbers
from analysis.paper.numbers import SCALES as PAPER_SCALES
from analysis.scores.metrics import read_described, read_metrics
from configs.cost.model import flops_per_token
from configs.errors import ArtifactError, ConfigError
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load, load_benchmark, load_mixture, load_sources
from configs.metrics import KEYS
from configs.schema import StudyConfig, TrainConfig

Value = TypeVar("Value")
OTHER = "Other"
"""Category of a benchmark of which none is known."""


def load_panel(study: StudyFolder, recipe: str | None = None, average_seeds: bool = False) -> Panel:
    """Read a study. `recipe`: SFT recipe to show (default: the study's first).

    Raises ArtifactError for missing or damaged files and ConfigError for an unknown recipe.
    """
    scored = read_metrics(study)
    config = load(StudyConfig, study.config) if study.config.is_file() else None
    shown, other_recipes = _choose_recipe(study, config, scored, recipe)
    every = scored[(scored["stage"] == "PT") | (scored["recipe"] == shown)]
    last = _last_checkpoints(every)
    plain, other_variants = _choose_variants(last)
    metrics = _asked(last, plain)
    if config:
        _check_planned(config, metrics, study)

    categories, groups = read_described(study)
    own = _own_benchmarks(categories, config, metrics)
    axes = _build_axes(config, metrics, own)
    scales = tuple(config.scales) if config else _by_size(metrics)
    by_stage = [((str(scale), str(stage)), rows) for (scale, stage), rows in metrics.groupby(["scale", "stage"])]
    return Panel(
        study=study,
        config=config,
        synthetic=config.synthetic if config else study.declared.is_file(),
        scales=scales,
        mixtures=axes.mixtures,
        benchmarks=axes.benchmarks,
        recipe=shown,
        other_recipes=other_recipes,
        other_variants=other_variants,
        seeds=axes.seeds,
        average_seeds=average_seeds,
        design=_known({mixture: _design(mixture, groups.get(mixture, "")) for mixture in axes.mixtures}),
        values=_cube(metrics, "value", axes),
        stderrs=_cube(metrics, "stderr", axes),
        examples=int(metrics.loc[_is_accuracy(metrics), "n"].sum()),
        items=load_items(study, metrics[list(KEYS)], axes.seeds, axes.mixtures),
        cells={side: tuple(sorted(set(rows["fingerprint"]))) for side, rows in by_stage},
        # In the prompt variant of the last checkpoints, so that a milestone differs from them in training alone.
        milestones=_milestones(_asked(every, plain), axes),
        trained={side: (int(rows["step"].max()), int(rows["tokens"].max())) for side, rows in by_stage},
        sizes={str(slug): int(n) for slug, n in metrics.groupby("benchmark")["n"].max().items()},
        flops_per_token=_known({scale: _flops_per_token(study, config, scale, axes) for scale in scales}),
        held_out=_known({scale: held_out(study, scale, axes.mixtures, axes.seeds) for scale in scales}),
        beside_paper=not categories,
        **_names_of_benchmarks(axes.benchmarks, own),
    )


def _known(found: dict[str, Value | None]) -> dict[str, Value]:
    """The entries that are not None."""
    return {name: value for name, value in found.items() if value is not None}


class _Axes(NamedTuple):
    """The axes of a panel's matrices, besides scale and stage."""

    seeds: tuple[int, ...]
    mixtures: tuple[str, ...]
    benchmarks: tuple[str, ...]


def _choose_recipe(
    study: StudyFolder, config: StudyConfig | None, metrics: pd.DataFrame, wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """(SFT recipe to show, the other ones). The first of the study that has scores, unless one is wanted."""
    scored = tuple(sorted(set(metrics.loc[metrics["stage"] == "SFT", "recipe"])))
    recipes = tuple(dict.fromkeys((*(config.recipes if config else ()), *scored)))
    if wanted is not None and wanted not in recipes:
        valid = ", ".join(recipes) or "none scored"
        raise ConfigError(f"no SFT recipe {wanted!r}", where=f"study {study}", valid=valid)
    shown = wanted or next((recipe for recipe in recipes if recipe in scored), recipes[0] if recipes else "")
    return shown, tuple(recipe for recipe in recipes if recipe != shown)


def _last_checkpoints(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last step of each scale and stage.

    All runs of a scale and stage end at the same step; one that was scored at a milestone only is not yet measured.
    """
    return metrics[metrics["step"] == metrics.groupby(["scale", "stage"])["step"].transform("max")]


def _choose_variants(metrics: pd.DataFrame) -> tuple[dict[Any, str], tuple[str, ...]]:
    """((benchmark, stage) -> the plainest prompt variant that was scored, the other variants).

    The stages choose separately: fine-tuned checkpoints may have been asked in chat, others never are.
    """
    variants = metrics.groupby(["benchmark", "stage"])["variant"].unique()
    plain = {cell: min(found, key=_variant_rank) for cell, found in variants.items()}
    return plain, tuple(sorted({v for cell, found in variants.items() for v in found if v != plain[cell]}))


def _check_planned(config: StudyConfig, metrics: pd.DataFrame, study: StudyFolder) -> None:
    """Raises ArtifactError where a scale or mixture was scored that study.yaml lacks."""
    for key, known in (("scale", tuple(config.scales)), ("mixture", config.mixtures)):
        if unknown := sorted(set(metrics[key]) - set(known)):
            problem = f"there are scores of {key} {unknown[0]!r}, which it lacks"
            raise ArtifactError(problem, where=study.config, valid=", ".join(known))


def _build_axes(config: StudyConfig | None, metrics: pd.DataFrame, own: dict[str, tuple[str, str]]) -> _Axes:
    """The axes that study.yaml plans, scored or not; without it those that were scored. own: see `_own_benchmarks`."""
    seeds = tuple(sorted({*metrics["seed"].astype(int), *(config.seeds if config else ())}))
    mixtures = config.mixtures if config else tuple(sorted(set(metrics["mixture"])))
    wanted = (config.benchmarks or BENCHMARKS) if config else set(metrics["benchmark"])
    benchmarks = (slug for slug in BENCHMARKS if slug in wanted)
    return _Axes(seeds, mixtures, (*benchmarks, *sorted(own, key=lambda slug: (own[slug], slug))))


def _names_of_benchmarks(slugs: tuple[str, ...], own: dict[str, tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Categories and displayed names, as `Panel` takes them; nothing where all benchmarks are the paper's."""
    if not own:
        return {}
    paper = {slug: (paper_numbers.category_of()[slug], name) for slug, name in paper_numbers.displays().items()}
    described = {slug: own.get(slug) or paper[slug] for slug in slugs}
    return {
        "category_of": {slug: category for slug, (category, _) in described.items()},
        "displays": {slug: name for slug, (_, name) in described.items()},
    }


def _own_benchmarks(
    categories: dict[str, str], config: StudyConfig | None, metrics: pd.DataFrame
) -> dict[str, tuple[str, str]]:
    """Benchmarks beside the paper's 20: slug -> (category, displayed name).

    categories: those that came with given metrics, which then name all benchmarks. Otherwise a study's own benchmarks
    are those that it lists; if it lists none, or one whose file has gone, they are all that were scored.
    """
    if categories:
        return {slug: (found or OTHER, slug) for slug, found in categories.items() if slug not in BENCHMARKS}
    listed: dict[str, tuple[str, str]] = {}
    complete = config is not None
    for name in config.benchmarks if config else ():
        if name not in BENCHMARKS:
            try:
                spec = load_benchmark(name)
                listed[spec.slug] = spec.category, spec.display
            except ConfigError:
                complete = False
    scored = () if complete else sorted({str(slug) for slug in metrics["benchmark"]} - {*BENCHMARKS})
    return {slug: (OTHER, slug) for slug in scored} | listed


def _asked(metrics: pd.DataFrame, variant_of: dict[Any, str]) -> pd.DataFrame:
    """Rows in the prompt variant shown; variant_of: by benchmark and stage."""
    cells = pd.MultiIndex.from_frame(metrics[["benchmark", "stage", "variant"]])
    return metrics[cells.isin([(*cell, variant) for cell, variant in variant_of.items()])]


def _flops_per_token(study: StudyFolder, config: StudyConfig | None, scale: str, axes: _Axes) -> float | None:
    """FLOPs per token of pretraining; None where nothing says how the scale was trained."""
    trained = config_of(study, config, scale, None, axes.mixtures, axes.seeds)
    return flops_per_token(trained.model).causal if isinstance(trained, TrainConfig) else None


def _is_accuracy(metrics: pd.DataFrame) -> pd.Series:
    """Rows of plain accuracy, of which every scored cell has one."""
    return (metrics["metric"] == "accuracy") & (metrics["normalisation"] == "sum")


def _milestones(metrics: pd.DataFrame, axes: _Axes) -> tuple[Milestone, ...]:
    found = []
    for names, rows in metrics[(metrics["stage"] == "PT") & _is_accuracy(metrics)].groupby(["scale", "tokens"]):
        scale, tokens = cast(tuple[str, int], names)
        (cube,) = _cube(rows, "value", axes).values()
        found.append(Milestone(scale, int(tokens), cube[0], tuple(sorted(set(rows["fingerprint"])))))
    return tuple(found)


def _cube(metrics: pd.DataFrame, column: str, axes: _Axes) -> Cube:
    names = ("seed", "mixture", "benchmark")
    places = [pd.Index(list(axis)).get_indexer(pd.Index(metrics[name])) for name, axis in zip(names, axes, strict=True)]
    wanted = np.all([place >= 0 for place in places], axis=0)  # a study may have scored what it no longer lists
    number = metrics[column].to_numpy(dtype=float)
    cube: Cube = {}
    for group, positions in metrics.groupby(["scale", "stage", "metric", "normalisation"]).indices.items():
        key = cast(tuple[str, str, str, str], group)
        rows = np.asarray(positions)[wanted[positions]]
        cube[key] = np.full([len(axis) for axis in axes], np.nan)
        cube[key][tuple(place[rows] for place in places)] = number[rows]
    return cube


def _variant_rank(variant: str) -> tuple[bool, int, bool, str]:
    """The plain prompt first: without chat template, fewest shots, lm-evaluation-harness's prompts."""
    shots = re.search(r"(\d+)shot", variant)
    return variant.endswith("/chat"), int(shots.group(1)) if shots else 0, not variant.startswith("lm_eval/"), variant


def _by_size(metrics: pd.DataFrame) -> tuple[str, ...]:
    """The scales of a study without study.yaml: the paper's names in order, then by the tokens that they saw."""
    tokens = metrics[metrics["stage"] == "PT"].groupby("scale")["tokens"].max()
    paper = [name.lower() for name in PAPER_SCALES]

    def rank(scale: str) -> tuple[int, int, str]:
        place = paper.index(scale.lower()) if scale.lower() in paper else -1
        return place, int(tokens.get(scale, 0)), scale

    return tuple(sorted(set(metrics["scale"]), key=rank))


def _design(mixture: str, group: str) -> Design | None:
    """The group that a mixture was given, else its shares in configs/mixtures; None for a mixture unknown there."""
    if group:
        return Design(group, None)
    try:
        weights, sources = load_mixture(mixture).weights, load_sources().sources
    except ConfigError:
        return None
    web = [sources[s].display for s, weight in weights.items() if sources[s].kind == "web" and weight > 0]
    code = sum(weight for s, weight in weights.items() if sources[s].kind == "code")
    return Design(" + ".join(sorted(web)), round(100 * code, 3))
