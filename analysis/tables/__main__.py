"""Print a study's tables: the paper's settings and numbers beside its own, and what its early scores are worth.

In: score files (or a published metrics.parquet) of a study. Out: tables on the terminal or in another form on standard
output, and with --out as files. Without a study the paper's own tables are printed, and what follows from them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from analysis.panel.studies import SEEDS, SEEDS_HELP, choose_study, study_of_scores
from configs.arguments import CommandParser
from configs.errors import ConfigError, user_errors
from configs.layout import StudyFolder, runs_root

if TYPE_CHECKING:
    from analysis.panel.panel import Panel
    from analysis.rendering.table import Sheet, Table

EXAMPLES = """examples:
  python -m analysis.tables                          the newest study under ./runs, or the paper alone
  python -m analysis.tables --study mini --table 5,decisions
  python -m analysis.tables --table 1,2,3,4          settings: models, training, mixtures, benchmarks
  python -m analysis.tables --table 5 --format tex --scores DIR     score files from anywhere
  python -m analysis.tables --out tables             every table as csv, md and tex
  python -m analysis.tables --seeds mean             each mixture's mean over its seeds
  python -m analysis.tables --study mini.zip         a published study: verified, recomputed from its scores, compared
  python -m analysis.tables --paper                  the paper's tables, and what follows from them
  python -m analysis.tables --paper --table 3 --format tex
"""
FORMATS = ("text", "csv", "md", "tex")


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.tables",
        description="Print a study's tables beside the paper's numbers: this run's number, its interval, the verdict.",
        examples=EXAMPLES,
    )
    parser.add_common("runs")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--study", help="its name, or FILE.zip of a published one (default: scored last)")
    which.add_argument("--scores", type=Path, metavar="DIR", help="score files of one study, wherever they are")
    which.add_argument("--paper", action="store_true", help="no study: the paper's tables, and what follows from them")
    parser.add_argument("--table", metavar="NAMES", help="which, e.g. 5 or 5,11,decisions (default: all)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="on standard output (default: text)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write files here instead: csv, md and tex of each table"
    )
    parser.add_argument("--recipe", help="SFT recipe to show (default: the study's first)")
    parser.add_argument("--seeds", choices=SEEDS, default="first", help=SEEDS_HELP)
    args = parser.parse(argv)
    with contextlib.ExitStack() as stack:
        runs = runs_root(args.runs)
        # CSV, Markdown and LaTeX go into files by redirection: nothing else may stand in them.
        notices = sys.stdout if args.format == "text" else sys.stderr
        study: StudyFolder | None
        if args.scores:
            study = stack.enter_context(study_of_scores(args.scores))
        elif args.study and args.study.endswith(".zip"):
            from analysis.panel.archive import recompute_metrics, study_at

            study = stack.enter_context(study_at(args.study, runs))
            print(f"{args.study}: every file is what its manifest says", file=notices)
            print(recompute_metrics(study), file=notices)
        else:
            study = None if args.paper else choose_study(runs, args.study, notices)
        if study is None:
            _print_paper(None if args.paper else runs, args)
        else:
            _print_study(study, args, notices)


def _print_paper(searched: Path | None, args: argparse.Namespace) -> None:
    """searched: the folder in which no study was found, if the paper is shown for want of one."""
    from analysis.tables.published import print_paper, published_sheets

    if args.table is None and args.format == "text" and not args.out:
        print_paper(searched)
        return
    sheets = published_sheets()
    names = [name.strip() for name in args.table.split(",")] if args.table else [*sheets]
    if unknown := [name for name in names if name not in sheets]:
        raise ConfigError(f"no table {unknown[0]!r} in the paper", where="--table", valid=", ".join(sheets))
    if searched:
        print(f"no study with scores under {searched}: the paper's own\n", file=sys.stderr)
    _deliver([sheet for name in names for sheet in sheets[name]], args)


def _print_study(study: StudyFolder, args: argparse.Namespace, notices: TextIO) -> None:
    from analysis.panel.load import load_panel
    from analysis.tables.catalogue import build_tables, parse_table_names
    from analysis.tables.settings import MAKERS as SETTINGS
    from analysis.tables.settings import settings_tables

    panel = load_panel(study, args.recipe, average_seeds=args.seeds == "mean")
    names = parse_table_names(args.table)
    settings = settings_tables(panel, names and [name for name in names if name in SETTINGS])
    tables = build_tables(panel, names and [name for name in names if name not in SETTINGS])
    if args.format == "text" and not args.out:
        print("\n".join(preamble(panel)), end="\n\n")
    made: list[Table | Sheet] = [*settings, *tables]
    # The published tables are of the first recipe and the first seeds; others cannot equal them.
    if args.study and args.study.endswith(".zip") and args.recipe is None and args.seeds == "first":
        print(f"{compare_tables(study, made)}\n", file=notices)
    _deliver(sorted(made, key=lambda table: names.index(table.name)) if names else made, args)


def _deliver(tables: Sequence[Table | Sheet], args: argparse.Namespace) -> None:
    from analysis.rendering.writers import FORMS, show, write_tables

    if args.out:
        write_tables(tables, args.out)
        print(f"written: {args.out}/*.csv, *.md, *.tex")
    elif args.format != "text":
        print("\n".join(FORMS[args.format](table) for table in tables), end="")
    else:
        for table in tables:
            show(table)


def preamble(panel: Panel) -> list[str]:
    """Lines above the tables: the study, its coverage, the paper's scales it stands for, and what is not shown."""
    from analysis.tables.paper import describe_scales

    rule = "═" * 100
    synthetic = "SYNTHETIC microworld: the numbers show that the method works; they say nothing about real data."
    lines = [rule, synthetic, rule] if panel.synthetic else []
    measured, planned = panel.coverage()
    counts = f"{measured} of {planned} evaluations of last checkpoints measured, {planned - measured} missing"
    lines.append(f"Study {panel.study.name}: {counts}")
    lines += describe_scales(panel)
    seeds = (
        "mean over each mixture's seeds" if panel.average_seeds else f"seed {panel.seeds[0]}" if panel.seeds else "none"
    )
    lines.append(f"seeds: {seeds}; SFT recipe: {panel.recipe or 'none'}" + _others(panel.other_recipes, "recipes"))
    if panel.other_variants:
        lines.append(f"not shown: {_others(panel.other_variants, 'prompt variants').strip(' ;')}")
    if unknown := [m for m in panel.mixtures if m not in panel.design]:
        lines.append(f"left out of Tables 7 to 9 and 11, since configs/mixtures lacks them: {', '.join(unknown)}")
    return lines


def _others(names: tuple[str, ...], what: str) -> str:
    return f"; other {what}: {', '.join(names)}" if names else ""


def compare_tables(study: StudyFolder, tables: Sequence[Table | Sheet]) -> str:
    """How tables made here compare with the published ones."""
    from analysis.rendering.writers import as_csv

    differing, absent = [], []
    for table in tables:
        path = study.report / "tables" / f"{table.name}.csv"
        if not path.is_file():
            absent.append(table.name)
        elif path.read_text(encoding="utf-8") != as_csv(table):
            differing.append(table.name)
    same = len(tables) - len(differing) - len(absent)
    words = f"tables recomputed: {same} of {len(tables)} identical to the published"
    words += f"; different: {', '.join(differing)}" if differing else ""
    return words + (f"; not published: {', '.join(absent)}" if absent else "")


if __name__ == "__main__":
    main()
