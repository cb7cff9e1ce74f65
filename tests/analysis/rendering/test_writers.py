"""Forms of a table: what a terminal of any width shows, what LaTeX is given, and what stands in CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from analysis.rendering.table import Column, Note, Row, RowVerdict, Sheet, Table
from analysis.rendering.writers import FORMS, LINE, as_csv, as_latex, as_markdown, as_text, format_verdict, show
from analysis.stats.estimates import Estimate, absent

HARD = r'\ { } $ & # % _ ^ ~ < > | "quoted"'


def made(keys: str = "scale metric category benchmark", extra: Sequence[str] = ("reliability",)) -> Table:
    """A table of Table 5's columns: two scales of two categories, one number without a claim, one missing."""
    rows = []
    for scale in ("mini_s", "mini_m"):
        for i, name in enumerate(("HellaSwag", "CommonsenseQA", "ARC-Challenge")):
            estimate = Estimate(
                0.5 - 0.3 * i, 9, "mixtures", low=-0.25, high=0.75, p=0.031, arrangements=24, smallest_p=0.04
            )
            if name == "ARC-Challenge":
                estimate = absent("no variation", n=9)
            claim = "reliability 0.07" if name == "CommonsenseQA" else ""
            category = "Science" if name.startswith("ARC") else "Commonsense"
            rows.append(Row((scale, "accuracy", category, name), estimate, 0.99, (0.38,) * len(extra), claim, q=0.045))
    note = "a long caveat that a narrow terminal must break between words, because it is longer than its line is wide"
    columns = tuple(Column(name, "{:.2f}".format) for name in extra)
    return Table("made", "Table 5. Made", tuple(keys.split()), columns, tuple(rows), caveats=(Note(note),))


def shown(table: Table | Sheet, width: int, colours: bool = False) -> list[str]:
    console = Console(
        record=True,
        force_terminal=True,
        width=width,
        file=io.StringIO(),
        color_system="standard" if colours else None,
        legacy_windows=False,
    )
    show(table, console)
    return console.export_text(styles=colours).splitlines()


def test_a_wide_terminal_shows_every_column() -> None:
    lines = shown(made(), 200)
    assert lines[0] == "Table 5. Made"
    for heading in (
        "scale",
        "benchmark",
        "paper",
        "this run",
        "95 % interval",
        "verdict",
        "n",
        "p",
        "q",
        "reliability",
    ):
        assert re.search(rf"(^|  ){re.escape(heading)}(  |$)", lines[1]), heading
    assert re.fullmatch("[─ ]+", lines[2])
    numbers = "+0.99 +0.50 [−0.25, +0.75] −0.49 outside 9 0.031 0.045 0.38"
    assert " ".join(lines[3].split()) == f"mini_s accuracy Commonsense HellaSwag {numbers}"
    assert lines[4].split()[0] == "CommonsenseQA" and "no claim: reliability 0.07" in lines[4]  # keys are said once
    assert lines[6].startswith("mini_m")
    assert "left out" not in "\n".join(lines)


def test_a_narrow_terminal_cuts_nothing_and_says_what_it_leaves_out() -> None:
    lines = shown(made(), 80)
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert lines[1].split() == ["benchmark", "paper", "this", "run", "95", "%", "interval", "verdict"]
    # What never changes is said once, other keys above their rows.
    assert [line for line in lines if "accuracy" in line] == ["  metric: accuracy"]
    assert [line for line in lines if line.startswith("mini_")] == [
        "mini_s, Commonsense",
        "mini_s, Science",
        "mini_m, Commonsense",
        "mini_m, Science",
    ]
    assert " ".join(lines[4].split()) == "HellaSwag +0.99 +0.50 [−0.25, +0.75] outside"
    assert "left out for want of room: reliability, difference, n, q, p" in "\n".join(lines)
    assert (
        "  a long caveat that" in "\n".join(lines) and " ".join(" ".join(lines).split()).count("its line is wide") == 1
    )


def test_a_key_too_long_for_any_line_stands_above_its_row() -> None:
    sentence = "a claim of many words " * 8
    table = Table("t", "T", ("claim",), (), (Row((sentence.strip(),), Estimate(0.5, 3)), Row(("b",), Estimate(0.4, 3))))
    lines = shown(table, 60)
    assert max(map(len, lines)) <= 60 and " ".join(lines).count("many") == 8
    assert any(re.fullmatch(r"\s*\+0\.50\s+3", line) for line in lines)


def test_rows_that_claim_nothing_are_faint() -> None:
    lines = shown(made(), 200, colours=True)
    grey = "\x1b[90m"
    faint = [line for line in lines if line.startswith(grey) and "─" not in line and "caveat" not in line]
    assert sum("no claim" in line for line in faint) == 2 and sum("missing" in line for line in faint) == 2
    assert not any("outside" in line for line in faint)


@pytest.mark.parametrize(
    ("change", "verdict", "text"),
    [
        ({}, RowVerdict.INSIDE, "inside"),
        ({"provisional": True}, RowVerdict.INSIDE, "inside, provisional"),
        ({"paper": 0.9, "provisional": True}, RowVerdict.OUTSIDE, "outside, provisional"),
        ({"estimate": Estimate(0.5, 2), "provisional": True}, RowVerdict.NO_INTERVAL, "no interval, provisional"),
        (
            {"no_claim": "reliability 0.07, early", "provisional": True},
            RowVerdict.NO_CLAIM,
            "no claim: reliability 0.07, early",
        ),
        ({"estimate": absent("no variation"), "no_claim": "x"}, RowVerdict.MISSING, "missing: no variation"),
        ({"paper": None, "provisional": True}, RowVerdict.NOT_COMPARED, ""),
    ],
)
def test_a_verdict_is_a_value_and_its_text_comes_last(change: dict[str, Any], verdict: RowVerdict, text: str) -> None:
    row = replace(Row(("a",), Estimate(0.5, 9, low=0.2, high=0.8), 0.6), **change)
    assert row.verdict is verdict and format_verdict(row) == text


def test_further_columns_hold_values_and_know_how_they_are_written() -> None:
    columns = (Column("share", "{:.1f}".format), Column("answer", lambda yes: "yes" if yes else "no", "not judged"))
    full, half, none = (Row(("a",), Estimate(0.5, 9), extra=extra) for extra in ((0.25, False), (None, None), ()))
    table = Table("t", "T", ("key",), columns, (full, half, none))
    assert table.values(full) == {"share": 0.25, "answer": False} and table.values(none)["answer"] is None
    assert [table.texts(row) for row in table.rows] == [["0.2", "no"], ["", "not judged"], ["", ""]]
    assert [line.rsplit(",", 2)[1:] for line in as_csv(table).splitlines()[1:]] == [
        table.texts(row) for row in table.rows
    ]


def test_elsewhere_than_on_a_terminal_it_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(made())
    assert capsys.readouterr().out == as_text(made()) + "\n\n"


def unescaped(tex: str) -> str:
    """What LaTeX prints of our escapes: an independent reading, one token after another."""
    words = {"textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~"}
    words |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    out, at = [], 0
    for token in re.finditer(r"\\([A-Za-z]+)\{\}|\\([{}$&#%_])|\$-\$|``|''|([^\\{}$&#%_^~<>|\"])", tex):
        assert token.start() == at, tex[at:]  # nothing else stands between
        at = token.end()
        out.append(words[token[1]] if token[1] else token[2] or token[3] or ("−" if token[0] == "$-$" else '"'))
    assert at == len(tex), tex[at:]
    return "".join(out)


def test_every_special_character_reaches_latex_escaped() -> None:
    sheet = Sheet(
        "hard", f"Table 9. {HARD}", ("a_b", HARD), ((HARD, "−0.5"), ("x", "[1, 2]"), ("*", "")), notes=(HARD,)
    )
    tex = as_latex(sheet)
    caption = re.search(r"\\caption\{(.*) \(the paper's Table 9\)\}", tex)
    assert caption and unescaped(caption[1]) == HARD
    rows = re.findall(r"^(.*[^\\]) & (.*) \\\\$", tex, flags=re.MULTILINE)
    assert unescaped(rows[1][0]) == HARD and rows[1][1] == "$-$0.5"
    assert rows[2] == ("x", "{[1, 2]}") and rows[3][0] == "{*}"
    body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert tex.splitlines()[-1] == f"% {HARD}"
    depth = 0
    for token in re.findall(r"\\.|[{}]", body):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0


def test_a_latex_line_has_as_many_columns_as_are_declared_and_fits() -> None:
    for table in (made(), made(extra=("reliability", "a", "b"))):
        tex = as_latex(table)
        sides = re.search(r"\\begin\{longtable\}\{(.*)\}", tex)
        assert sides
        columns = re.sub(r">\{.*?\}p\{[\d.]+em\}", "p", sides[1])
        assert re.fullmatch("[lrp]+", columns)
        rows = [line for line in tex.splitlines() if line.endswith("\\\\") and "&" in line]
        assert len(rows) == 1 + 6 and {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
        assert max(len(row) for row in rows[1:]) <= LINE + 4 * len(columns)
        assert rows[1].startswith("HellaSwag & +0.99 & +0.50 & {[$-$0.25, +0.75]} & ")


def test_a_sheet_keeps_exact_values_in_csv_and_reads_well_elsewhere() -> None:
    sheet = Sheet("s", "S", ("part", "this_study"), (("tokens", 11999903744), ("rate", 0.00002), ("gate", None)), 1)
    assert [*csv.reader(io.StringIO(as_csv(sheet)))] == [
        ["part", "this_study"],
        ["tokens", "11999903744"],
        ["rate", "2e-05"],
        ["gate", ""],
    ]
    assert "tokens  11,999,903,744" in as_text(sheet) and "this study" in as_text(sheet)
    assert "| tokens | 11,999,903,744 |" in as_markdown(sheet)
    assert set(FORMS) == {"text", "csv", "md", "tex"}
