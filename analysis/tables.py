"""Print Tables 5 to 11 of a study beside the paper's numbers, and what its early scores are worth as decisions.

In: score files (or a published metrics.parquet) of a study. Out: tables on the terminal and as csv, md and tex under
<runs>/<study>/report/tables. Without a study the paper's own tables are printed, and what follows from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ArtifactError, user_errors
from configs.layout import report_dir, runs_root

if TYPE_CHECKING:
    from analysis.panel import Panel
    from analysis.paper_tables import Table

EXAMPLES = """examples:
  python -m analysis.tables                          the newest study under ./runs, or the paper alone
  python -m analysis.tables --study mini
  python -m analysis.tables --paper                  the paper's tables, and what follows from them
  python -m analysis.tables --runs /data/runs --study paper --recipe table2b
  python -m analysis.tables --seeds mean             each mixture's mean over its seeds
"""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.tables",
        description="Print Tables 5 to 11 beside the paper's numbers: this run's number, interval and verdict.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--study", help="name of the study (default: the one scored last)")
    which.add_argument("--paper", action="store_true", help="no study: the paper's tables, and what follows from them")
    parser.add_argument("--recipe", help="SFT recipe to show (default: the study's first)")
    parser.add_argument(
        "--seeds",
        choices=("first", "mean"),
        default="first",
        help="first: the first seed of every mixture, as in the paper (default); mean: average over a mixture's seeds",
    )
    args = parser.parse_args(argv)
    runs = runs_root(args.runs)

    study = None if args.paper else choose_study(runs, args.study)
    if study is None:
        from analysis.published_tables import print_paper

        print_paper(None if args.paper else runs)
        return
    from analysis.panel import load_panel
    from analysis.writers import as_text, write_tables

    panel = load_panel(runs, study, args.recipe, average_seeds=args.seeds == "mean")
    tables = build_tables(panel)
    print("\n".join(preamble(panel)), end="\n\n")
    for table in tables:
        print(as_text(table), end="\n\n")
    folder = report_dir(runs, study) / "tables"
    write_tables(tables, folder)
    print(f"written: {folder}/*.csv, *.md, *.tex")


def build_tables(panel: Panel) -> list[Table]:
    """The paper's tables and ours, in the order in which they are shown."""
    from analysis.decision_tables import decision_tables
    from analysis.paper_tables import paper_tables

    return [*paper_tables(panel), *decision_tables(panel)]


def choose_study(runs: Path, name: str | None) -> str | None:
    """`name`, else the study with the newest scores; None where there is none. Says aloud which of several it is.

    Raises ArtifactError where the named study has neither scores nor metrics.
    """
    from analysis.panel import studies

    found = studies(runs)
    if name is None:
        if len(found) > 1:
            print(f"study {found[0]} (the newest); others: {', '.join(found[1:])}\n")
        return found[0] if found else None
    if name not in found:
        raise ArtifactError(
            "the study has no scores and no metrics.parquet",
            where=runs / name,
            valid=", ".join(found) or f"there is no study under {runs}",
            hint=f"python study.py run {name}",
        )
    return name


def preamble(panel: Panel) -> list[str]:
    """What is shown and what stands for what."""
    measured, planned = panel.coverage()
    lines = [
        f"Study {panel.study}: {measured} of {planned} benchmark evaluations measured, {planned - measured} missing"
    ]
    if panel.synthetic:
        lines.insert(0, "═" * 100)
        lines.insert(
            1, "SYNTHETIC microworld: the numbers show that the method works; they say nothing about real data."
        )
        lines.insert(2, "═" * 100)
    for scale in panel.scales:
        paper = panel.paper_scale(scale)
        if paper is None:
            lines.append(f"scale {scale}: the paper has no counterpart")
        elif paper.lower() != scale.lower():
            lines.append(f"scale {scale} stands beside the paper's {paper}; it is not that size")
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


if __name__ == "__main__":
    main()
