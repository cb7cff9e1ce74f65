"""Studies on disk, each as a `Panel`.

In: metrics of `analysis.scores.metrics`, <runs>/<study>/study.yaml where it exists, configs/mixtures. Out: `Panel`: the
last checkpoint of each run, one SFT recipe, the plainest prompt that a benchmark was scored with.
"""

from __future__ import annotations

import re
from typing import Any, cast

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

OTHER = "Other"
"""Category of a benchmark of which none is known."""


def load_panel(study: StudyFolder, recipe: str | None = None, average_seeds: bool = False) -> Panel:
    """Read a study. `recipe`: SFT recipe to show (default: the study's first).

    Raises ArtifactError for missing or damaged files and ConfigError for an unknown recipe.
    """
    metrics = read_metrics(study)
    path = study.config
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
    categories, groups = read_described(study)
    own = _own(categories, config, metrics)
    benchmarks += tuple(sorted(own, key=lambda slug: (own[slug], slug)))
    shown_as: dict[str, Any] = {}
    if own:
        shown_as["category_of"] = {s: own[s][0] if s in own else paper_numbers.category_of()[s] for s in benchmarks}
        shown_as["displays"] = {s: own[s][1] if s in own else paper_numbers.displays()[s] for s in benchmarks}
    scales = tuple(config.scales) if config else _by_size(metrics)
    models = {scale: config_of(study, config, scale, None, mixtures, seeds) for scale in scales}
    losses = {scale: held_out(study, scale, mixtures, seeds) for scale in scales}
    return Panel(
        study=study,
        config=config,
        synthetic=config.synthetic if config else (study.declared).is_file(),
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
        items=load_items(study, metrics[list(KEYS)], seeds, mixtures),
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


def _own(categories: dict[str, str], config: StudyConfig | None, metrics: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Benchmarks beside the paper's 20: slug -> (category, displayed name).

    categories: of given metrics. Of a study: those that it lists; where it lists none, or one whose file has gone, all
    that were scored.
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
