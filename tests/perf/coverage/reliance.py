"""The tables of docs/statistics.md that say how far each printed number can be relied upon, from committed results.

    python tests/perf/coverage/reliance.py

In: tests/perf/results. Out: the tables in docs/statistics.md, written anew. A test compares the two, so that no number
there is typed by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from configs.artifacts import read_json
from configs.layout import PROJECT_ROOT

DOCUMENT = PROJECT_ROOT / "docs" / "statistics.md"
RESULTS = PROJECT_ROOT / "tests" / "perf" / "results"
KINDS = ("shown", "Fisher", "jackknife", "BCa", "percentile")
R = ("r 0", "r 0.5", "r 0.8", "r 0.95")
NULL_AT_0, NULL_ALWAYS = ("r 0",), R
"""Where the null of a p-value is true in `printed_numbers`."""

PRINTED = (
    # Number in the tables, its name in `printed_numbers`, where the null of its p is true, a remark.
    ("r of a benchmark", "r of a benchmark (Fisher, or jackknife)", NULL_AT_0, "Table 5, code share, persistence"),
    (
        "the same, BCa interval, p within web sources",
        "r of a benchmark (BCa; p within web sources)",
        NULL_AT_0,
        "Table 5",
    ),
    ("mean r", "mean r over 20 benchmarks", NULL_AT_0, "Table 5"),
    ("r between different seeds, its p", "r between different seeds, p", NULL_AT_0, "replication"),
    ("r that other examples give, same mixtures", "r that other examples give, same mixtures", (), "Table 5"),
    ("coherence within a stage", "coherence, PT", (), "coherence"),
    (
        "coherence across stages",
        "coherence, cross",
        NULL_AT_0,
        "coherence; p is of no dependence at all, which fails here",
    ),
    ("alignment, averaged", "alignment, averaged", NULL_AT_0, "Tables 6, 8, 9"),
    ("alignment, pooled", "alignment, pooled", NULL_AT_0, "Tables 6, 8, 9"),
    ("decision accuracy", "decision accuracy of a benchmark", NULL_AT_0, "decisions"),
    ("decision accuracy, mean", "decision accuracy, mean over benchmarks", NULL_AT_0, "signals"),
    ("change of r between scales", "change of r between scales, a benchmark", NULL_ALWAYS, "scale_differences"),
    ("change of a mean r", "change of r between scales, the mean", NULL_ALWAYS, "scale_differences"),
    ("difference of two web sources", "difference of two web sources", NULL_ALWAYS, "web_differences, Table 7"),
    ("similarity of matrices, Mantel's p", "similarity of matrices, p (Mantel)", NULL_AT_0, "matrix_similarity"),
    (
        "the same, p against unrelated ones",
        "similarity of matrices, p (unrelated benchmarks)",
        R,
        "the same",
    ),
    ("difference of two checkpoints", "difference of two checkpoints, percentage points", NULL_ALWAYS, "compare"),
)


def measured(name: str) -> Any:
    return read_json(RESULTS / f"{name}.json")["measured"]


def span(shares: Iterable[float]) -> str:
    """Smallest to largest share, in per cent."""
    found = sorted(shares)
    low, high = whole(found[0]), whole(found[-1])
    return low if low == high else f"{low} to {high}"


def reliance_rows() -> Iterator[tuple[str, ...]]:
    """(number, where, coverage, false rejections, experiment)."""
    numbers = measured("printed_numbers")["numbers"]
    for number, name, null, where in PRINTED:
        rates = [numbers[r][name] for r in R]
        coverage = span(rate["coverage"] for rate in rates) if "coverage" in rates[0] else ""
        rejected = span(numbers[r][name]["rejected"] for r in null) if null else ""
        yield number, where, coverage, rejected, "printed_numbers"
    singles = measured("interval_coverage")["coverage"]
    for name, lines in singles.items():
        shown = span(line["shown"]["coverage"] for line in lines.values())
        yield (
            f"r of a benchmark, {name} points",
            "Table 5",
            shown,
            span([lines["rho 0"]["rejected"]]),
            "interval_coverage",
        )
    means = span(line["coverage"] for line in measured("interval_coverage")["means"])
    yield "mean r; 9 and 18 mixtures, a shared factor", "Table 5", means, "", "interval_coverage"
    categories = measured("category_coverage")["lines"]
    null = [line["mean of r"]["significant"] for line in categories if line["true_r"] == 0]
    held = span(line["mean of r"]["coverage"] for line in categories)
    yield "mean r of a category", "category_means", held, span(null), "category_coverage"
    decided = measured("decision_coverage")["lines"]
    for number, key in (("decision accuracy, same mixtures", "decision accuracy"), ("cost of a choice", "regret")):
        held = span(line[key]["coverage"] for line in decided if line["true_r"] < 1)
        yield number, "decisions; true r below 1", held, "", "decision_coverage"
    few = measured("seed_noise_coverage")["lines"]
    for number, key in (("decision accuracy, same mixtures", "accuracy"), ("cost of a choice", "cost")):
        held = span(line["noise with its uncertainty"][key]["coverage"] for line in few)
        yield f"{number}, noise from few seeds", "decisions", held, "", "seed_noise_coverage"
    changes = measured("scale_changes")["lines"]
    told = span(line["studies_that_tell_a_false_change"] for name, line in changes.items() if "both" in name)
    yield "any change between scales that is told", "report", "", f"{told} of studies", "scale_changes"
    null = [line for line in measured("trust_rule")["lines"] if line["r"] == 0 and line["special"] != "own examples"]
    any_trust = span(line["any_trust"] for line in null)
    yield "any “trust”", "report", "", f"{any_trust} of studies", "trust_rule"


def trust_rows() -> Iterator[tuple[str, ...]]:
    """(run noise, seeds, any trust without differences, with unrelated ones, power at r 0.95, 0.8 and 0.3)."""
    lines = [line for line in measured("trust_rule")["lines"] if not line["special"] and line["mixtures"] == 9]
    for seeds in (2, 3, 5):
        for noise in (0.5, 1, 2, 3):
            mine = [line for line in lines if (line["seeds"], line["noise_pp"]) == (seeds, noise)]
            nulls = {line["truth"]: line["any_trust"] for line in mine if line["r"] == 0}
            power = {line["r"]: line["power_PT_to_SFT"] for line in mine if line["truth"] == "all"}
            shares = [nulls["no differences"], nulls["unrelated differences"], power[0.95], power[0.8], power[0.3]]
            yield str(seeds), f"{noise:g}", *(f"{100 * share:.1f}" for share in shares[:2]), *map(whole, shares[2:])


def special_rows() -> Iterator[tuple[str, ...]]:
    """(condition, any trust without differences at 1 and 3 points, with unrelated ones, power at r 0.95 and 0.8)."""
    found = measured("trust_rule")
    lines = found["lines"]
    for name, words in found["special"].items():
        mine = [line for line in lines if line["special"] == name]
        nulls = {(line["truth"], line["noise_pp"]): line["any_trust"] for line in mine if line["r"] == 0}
        power = {line["r"]: (line["power_PT_to_SFT"], line["power_between_scales"]) for line in mine if line["r"] > 0}
        keys = [(truth, noise) for truth in ("no differences", "unrelated differences") for noise in (1, 3)]
        shares = [f"{100 * nulls[key]:.1f}" for key in keys]
        yield words, *shares, *(f"{whole(pt)}, {whole(between)}" for pt, between in (power[0.95], power[0.8]))


def discovery_rows() -> Iterator[tuple[str, ...]]:
    """(truth, r, seeds, run noise, false discovery rate, power)."""
    found = measured("trust_rule")
    for line in found["lines"]:
        if line["truth"] in ("some", "one arrow"):
            words, r = found["truths"][line["truth"]], f"{line['r']:g}"
            rates = f"{100 * line['false_discovery_rate']:.1f}", whole(line["power_PT_to_SFT"])
            yield words, r, str(line["seeds"]), f"{line['noise_pp']:g}", *rates


def interval_rows() -> Iterator[tuple[str, ...]]:
    """(points, true r, coverage of each interval)."""
    for name, lines in measured("interval_coverage")["coverage"].items():
        for line in lines.values():
            shares = (f"{100 * line[kind]['coverage']:.1f}" for kind in KINDS)
            yield name, f"{line['true_r']:.2f}", *shares


def mean_rows() -> Iterator[tuple[str, ...]]:
    """(mixtures, shared factor, coverage of the mean's interval at each true r)."""
    means = measured("interval_coverage")["means"]
    for mixtures, shared in dict.fromkeys((line["mixtures"], line["shared"]) for line in means):
        mine = [line for line in means if (line["mixtures"], line["shared"]) == (mixtures, shared)]
        yield str(mixtures), f"{shared:g}", *(f"{100 * line['coverage']:.1f}" for line in mine)


def whole(share: float) -> str:
    return f"{100 * share:.0f}"


TABLES = {
    "reliance": (
        ("printed number", "where", "95 % interval holds the truth, %", "p ≤ .05 under a true null, %", "experiment"),
        reliance_rows,
    ),
    "trust": (
        (
            "seeds",
            "run noise, points",
            "any trust, no differences, %",
            "any trust, unrelated differences, %",
            "power at r 0.95, %",
            "at 0.8",
            "at 0.3",
        ),
        trust_rows,
    ),
    "special": (
        (
            "three seeds, and",
            "any trust, no differences, 1 point, %",
            "3 points",
            "unrelated differences, 1 point",
            "3 points",
            "power at r 0.95 (PT to SFT, between scales), %",
            "at 0.8",
        ),
        special_rows,
    ),
    "discovery": (
        ("truth", "r", "seeds", "run noise, points", "false discovery rate of the test, %", "power, %"),
        discovery_rows,
    ),
    "means": (
        ("mixtures", "r between benchmarks", *(f"true r {r}, %" for r in ("0", "0.5", "0.8", "0.95"))),
        mean_rows,
    ),
    "intervals": (("points", "true r", *(f"{kind}, %" for kind in KINDS)), interval_rows),
}
"""Name in the document's comments -> (head, what makes the rows)."""


def markdown() -> dict[str, str]:
    """Each table, by name."""
    found = {}
    for name, (head, rows) in TABLES.items():
        lines = [head, ("---",) * len(head), *rows()]
        found[name] = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return found


def updated(document: str) -> str:
    """The document with each table between its comments `<!-- name -->` and `<!-- end -->`."""
    for name, table in markdown().items():
        (found,) = re.findall(rf"<!-- {name} -->\n\n(?:\|.*\n)*\n?(?:<!-- end -->\n\n*)?", document)
        document = document.replace(found, f"<!-- {name} -->\n\n{table}\n\n<!-- end -->\n\n")
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text()))
