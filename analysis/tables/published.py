"""`python -m analysis.tables --paper`: the paper's tables as printed, then what follows from Table 5 alone.

In: analysis/paper, analysis/paper/published.py. Out: lines for the terminal. No study is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.paper import published as pub
from analysis.paper.numbers import CATEGORIES, SETUP_TITLES, TITLES, category_of, displays, frame, numbers
from analysis.rendering.formats import format_interval, format_p, format_signed, join_names
from analysis.rendering.grid import Grid, align
from analysis.rendering.table import Sheet
from analysis.rendering.writers import as_text

WORKED_OUT = f"""\
WHAT FOLLOWS FROM TABLE 5 ALONE
  r: as printed, over {pub.MIXTURES} mixtures        95 % interval: Fisher z
  p: of r = 0, t with n − 2 degrees of freedom; below {pub.LEVEL} where |r| > {pub.critical_r(pub.MIXTURES):.3f}
  q: Benjamini-Hochberg over the 20 of a column
  z: change from 240M to 1B, the scales taken for independent; its q over the 20
  What the text makes of these numbers: docs/contradictions.md"""

HOW_TO_GO_ON = """\
To put a run's numbers beside them:
  make study                                     the miniature study (synthetic, minutes on two CPU cores)
  python -m analysis.tables --runs DIR           published score files: DIR/<study>/scores/**/*.parquet"""


def print_paper(searched: Path | None = None) -> None:
    """searched: the folder in which no study was found, if the paper is shown for want of one."""
    print(
        "THE PAPER'S NUMBERS ONLY.", *([] if searched is None else ["No study with scores was found under", searched])
    )
    tables = [as_text(sheet) for sheets in published_sheets().values() for sheet in sheets]
    for block in (*tables, WORKED_OUT, *worked_out(), HOW_TO_GO_ON):
        print(f"\n{block}")


def published_sheets() -> dict[str, list[Sheet]]:
    """Number of the table -> it, or its halves, in the paper's layout."""
    found: dict[str, list[Sheet]] = {}
    for number, title in (SETUP_TITLES | {str(n): title for n, title in TITLES.items()}).items():
        table = frame(f"table{number}")
        rows = [tuple(cell.replace("_", " ") for cell in row) for row in table.to_numpy().tolist()]
        sheet = Sheet(f"table{number}", f"Table {number}. {title}", tuple(map(str, table.columns)), tuple(rows))
        found.setdefault(number.rstrip("ab"), []).append(sheet)
    return found


def worked_out() -> Iterator[str]:
    """Blocks of text with all that r and n give: by benchmark, means, counts, tiers."""
    for metric in ("accuracy", "confidence"):
        yield _by_benchmark(metric)
    yield _means()
    yield _counts()
    yield _tiers()


def _by_benchmark(metric: str) -> str:
    columns = [(pub.estimates(metric, scale), pub.q_values(metric, scale)) for scale in pub.SCALES]
    changes = pub.scale_changes(metric)
    rows = []
    for slug, name in displays().items():
        row = [category_of()[slug], name]
        for estimates, q in columns:
            e = estimates[name]
            row += [format_signed(e.value), format_interval(e.ends), format_p(e.p), format_p(q[name], digits=3)]
        rows.append([*row, format_signed(changes[name].z), format_p(changes[name].q, digits=3)])
    parts = [heading for scale in pub.SCALES for heading in (f"r {scale}", "95 % interval", "p", "q")]
    header = ["category", "benchmark", *parts, "z", "q of z"]
    return _block(f"Cross-stage correlation of {metric}, each benchmark", header, rows)


def _means() -> str:
    text = pub.means_in_text()
    (left_out,) = pub.deletions_that_fit(1)
    rows = [
        ["as Table 5 prints it", *(f"{numbers()['5', *key, 'mean']:.2f}" for key in pub.COLUMNS)],
        ["of Table 5's 20 benchmarks", *(f"{pub.mean(*key):.4f}" for key in pub.COLUMNS)],
        ["as Findings 2 and 7 print it", *(f"{text[key]:.2f}" for key in pub.COLUMNS)],
        [f"without {', '.join(left_out)}", *(f"{pub.mean(*key, without=left_out):.4f}" for key in pub.COLUMNS)],
        *([f"of {c}", *(f"{pub.mean(*key, category=c):.4f}" for key in pub.COLUMNS)] for c in CATEGORIES),
    ]
    return _block("Mean correlation", ["mean", *_columns()], rows)


def _counts() -> str:
    columns = [list(pub.estimates(*key).values()) for key in pub.COLUMNS]
    tested = [[e.p is not None and e.p < pub.LEVEL for e in column] for column in columns]
    rows = [
        [f"p < {pub.LEVEL}", *(str(sum(column)) for column in tested)],
        [f"q < {pub.LEVEL}", *(str(len(pub.significant(*key))) for key in pub.COLUMNS)],
        ["the same, within the rounding of r", *(span(*pub.significant_range(*key)) for key in pub.COLUMNS)],
        *(
            [
                f"{field} end of the interval {sign} {bound}",
                *(str(len(rule(bound, field, [key]))) for key in pub.COLUMNS),
            ]
            for field, sign, bound, rule in (("low", ">", pub.HIGH, pub.above), ("high", "<", pub.LOW, pub.below))
        ),
    ]
    return _block("Benchmarks out of 20", ["benchmarks with", *_columns()], rows)


def _tiers() -> str:
    high, low = f"r > {pub.HIGH} in all four columns", f"r < {pub.LOW} at either scale"
    rows = [
        ["highly reliable", "as the text lists them", _names(pub.TIERS["highly reliable"])],
        ["", high, _names(pub.above(pub.HIGH))],
        ["", "the same of the whole interval", _names(pub.above(pub.HIGH, "low"))],
        ["unreliable", "as the text lists them", _names(pub.TIERS["unreliable"])],
        ["", f"{low}, accuracy", _names(pub.below(pub.LOW, columns=pub.ACCURACY))],
        ["", f"{low}, confidence", _names(pub.below(pub.LOW, columns=pub.CONFIDENCE))],
        ["", "the same of the whole interval", _names(pub.below(pub.LOW, "high"))],
    ]
    return _block("Tiers of Appendix C.2", ["tier", "rule", "benchmarks"], rows)


def span(fewest: int, most: int) -> str:
    return str(most) if fewest == most else f"{fewest} to {most}"


def _columns() -> list[str]:
    return [f"{metric} {scale}" for metric, scale in pub.COLUMNS]


def _names(benchmarks: Sequence[str]) -> str:
    return join_names(benchmarks) or "none"


def _block(title: str, header: list[str], rows: list[list[str]]) -> str:
    return "\n".join([title, *align(Grid(title, header, rows))])
