"""The numbers of the paper, from the CSV files in analysis/paper.

In: facts, copied from the tables and the text of "The Magic Correlations". Out: data frames in the paper's own
layout, and one flat mapping from what a number describes to the number, so that a run's table can stand beside it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

from configs.load import BENCHMARKS

FOLDER = Path(__file__).parent
SCALES = ("240M", "1B")
CATEGORIES = ("Commonsense", "Science", "NLI", "Semantic")
WEB_SOURCES = ("RefinedWeb", "FineWeb-Edu", "DCLM")

SETUP_TITLES = {
    "1": "Model architecture",
    "2a": "Pretraining",
    "2b": "Supervised fine-tuning",
    "3": "Pretraining mixtures",
    "4": "Evaluation benchmarks",
}
TITLES = {
    5: "Cross-stage correlation (PT to SFT) of each benchmark",
    6: "Performance-confidence alignment by category",
    7: "FineWeb-Edu minus RefinedWeb, after pretraining",
    8: "Performance-confidence alignment by web source",
    9: "Performance-confidence alignment by code percent",
    10: "Persistence of alignment from PT to SFT",
    11: "Mean accuracy by web source, larger scale after SFT",
}


@functools.cache
def frame(name: str) -> pd.DataFrame:
    """The CSV analysis/paper/<name>*.csv, e.g. `table5`; text stays as printed."""
    (path,) = (p for p in FOLDER.glob("*.csv") if p.stem == name or p.stem.startswith(f"{name}_"))
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@functools.cache
def displays() -> dict[str, str]:
    """Benchmark slug -> name in Table 4; both lists have the same order."""
    return dict(zip(BENCHMARKS, frame("table4")["benchmark"], strict=True))


@functools.cache
def category_of() -> dict[str, str]:
    """Benchmark slug -> category as Table 4 spells it (lower case in score files)."""
    return dict(zip(BENCHMARKS, frame("table4")["category"], strict=True))


@functools.cache
def numbers() -> dict[tuple[str, ...], float]:
    """Every number of Tables 5 to 11 and some of the text, keyed by table number or name and what it describes.

    ("5", metric, scale, slug or "mean"), ("6", scale, stage, category), ("7", quantity, scale, category),
    ("8", scale, stage, web, category), ("9", scale, stage, code %, category), ("10", scale, category),
    ("11", web, category); from the text ("coherence", metric, protocol, scale, category), Finding 8; ("similarity",
    metric, scale), Finding 3; ("code", scale, stage, category or slug), Figures 14 and 15. Table 7's accuracy is
    in percentage points, Table 11's in per cent.
    """
    found: dict[tuple[str, ...], float] = {}
    slugs = {display: slug for slug, display in displays().items()}
    for row in frame("table5").to_dict("records"):
        for metric in ("accuracy", "confidence"):
            for scale in SCALES:
                found["5", metric, scale, slugs.get(row["benchmark"], "mean")] = float(row[f"{metric}_{scale}"])
    for row in frame("table7").to_dict("records"):
        for quantity, column in (("accuracy", "accuracy_pp"), ("alignment", "alignment")):
            for scale in SCALES:
                found["7", quantity, scale, row["category"]] = float(row[f"{column}_{scale}"])
    keys = {"6": ["scale", "stage"], "8": ["scale", "stage", "web_source"], "9": ["scale", "stage", "code_percent"]}
    for number, columns in (keys | {"10": ["scale"]}).items():
        for row in frame(f"table{number}").to_dict("records"):
            for category in CATEGORIES:
                found[number, *(str(row[c]) for c in columns), category] = float(row[category])
    for row in frame("table11").to_dict("records"):
        for web in WEB_SOURCES:
            found["11", web, row["category"]] = float(row[web])
    return found | _numbers_in_text(slugs)


def _numbers_in_text(slugs: dict[str, str]) -> dict[tuple[str, ...], float]:
    """The part of `numbers` that the text gives; slugs: by displayed name."""
    found: dict[tuple[str, ...], float] = {}
    for row in frame("values_in_text").to_dict("records"):
        what, scale, stage, name = (row[c] for c in ("quantity", "scale", "stage", "category_or_benchmark"))
        if what == "intra-category accuracy coherence":
            found["coherence", "accuracy", stage, scale, name] = float(row["value"])
        elif what == "correlation of PT-PT and SFT-SFT confidence matrices":
            found["similarity", "confidence", scale] = float(row["value"])
        elif what.startswith("code proportion vs"):
            # The first counts: for HellaSwag at 1B, C.4.2 repeats the number that Figure 15 has for 240M.
            found.setdefault(("code", scale, stage, slugs.get(name, name)), float(row["value"]))
    return found


def in_text(**row: str) -> float:
    """The one number of the text (values_in_text.csv) in whose row the columns are as given."""
    records = frame("values_in_text").to_dict("records")
    (found,) = (record["value"] for record in records if all(record[key] == value for key, value in row.items()))
    return float(found)
