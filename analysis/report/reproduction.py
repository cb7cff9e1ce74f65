"""Where the numbers of a study come from, which of them are missing, and how to make them again.

In: `Panel`, the study's folder. Out: names, fingerprints and commands for the report; no path of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from analysis.panel.collect import format_benchmarks
from analysis.panel.panel import Panel
from analysis.scores.score_files import read_metadata, score_files
from configs.layout import StudyFolder

SHOWN = 4  # values of one key


def missing_cells(panel: Panel) -> list[tuple[str, str]]:
    """(checkpoint, benchmarks without a score on it) of every planned checkpoint that lacks any."""
    found = []
    for scale, stage, mixture, seed in panel.planned():
        values = panel.over_seeds(scale, stage)[panel.seeds.index(seed), panel.mixtures.index(mixture)]
        names = [panel.displays[slug] for slug, value in zip(panel.benchmarks, values, strict=True) if np.isnan(value)]
        if names:
            found.append((f"{scale} {stage} {mixture} seed {seed}", format_benchmarks(names, len(panel.benchmarks))))
    return found


def facts(panel: Panel) -> list[tuple[str, str]]:
    """(what, words)."""
    files = score_files(panel.study)
    metadata = pq.read_schema(panel.study.metrics).metadata or {}
    lines = [
        ("Seeds shown", f"mean over {list(panel.seeds)}" if panel.average_seeds else f"seed {panel.seeds[0]}"),
        ("SFT recipe", panel.recipe or "none"),
    ]
    lines += [("Other recipes, not shown", ", ".join(panel.other_recipes))] if panel.other_recipes else []
    lines += [("Other prompts, not shown", ", ".join(panel.other_variants))] if panel.other_variants else []
    lines += [
        ("Score files", f"{len(files):,}, {panel.examples:,} scored examples in the cells shown"),
        ("Fingerprint of all scores", metadata.get(b"scores", b"unknown: metrics only").decode()),
        *((f"Fingerprint, {scale} {stage}", print_) for (scale, stage), print_ in sorted(panel.fingerprints.items())),
    ]
    for key, values in read_metadata(files).items():
        more = f"; and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
        lines.append((f"Scores: {key}", re.sub(r"\s+", " ", "; ".join(values[:SHOWN]) + more)))
    return lines


def file_names(study: StudyFolder) -> list[str]:
    """Names of the score files, relative to the study's folder."""
    return [study.relative(path) for path in score_files(study)]


def commands(panel: Panel, tables: Sequence[str], from_scores: bool) -> list[tuple[str, str]]:
    """(command, what it makes), in the order of the data; tables: their names."""
    study, example, seeds = panel.study.name, tables[0].removeprefix("table"), " --seeds mean" * panel.average_seeds
    lines = [(f"python study.py collect {study}", "metrics.parquet and answers.parquet from the score files")]
    return [
        *(lines if from_scores else []),
        (f"python -m analysis.tables --study {study} --out tables{seeds}", "every table as CSV, Markdown and LaTeX"),
        (f"python -m analysis.tables --study {study} --table {example} --format csv{seeds}", "one, at full precision"),
        *(() if seeds else ((f"python -m analysis.figures --study {study} --out figures", "every figure"),)),
        (f"python -m analysis.report --study {study}{seeds}", "this page"),
    ]
