"""Bring your own numbers: a tidy table of scores becomes a study, without training or scoring anything.

In: a CSV or Parquet table as `analysis.tidy.table` describes it. Out: <runs>/<study>/metrics.parquet, from which tables
and report are made as from any study.

    python -m analysis.tidy numbers.csv --study ours && python -m analysis.tables --study ours
"""

from __future__ import annotations

from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import user_errors
from configs.layout import StudyFolder, runs_root

EXAMPLES = """example:
  python -m analysis.tidy numbers.csv --study ours
  python -m analysis.tables --study ours
"""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.tidy",
        description="Make a study of a tidy CSV or Parquet table: model, stage, benchmark, value and what is known.",
        examples=EXAMPLES,
    )
    parser.add_argument("table", type=Path, help="*.csv or *.parquet; columns: see docs/own_numbers.md")
    parser.add_common("study", required=True, help="name of the study to write")
    parser.add_common("runs")
    args = parser.parse(argv)
    # Behind the parser: it loads numpy and pandas, for which --help need not wait.
    from analysis.tidy.table import write_tidy

    print(write_tidy(args.table, StudyFolder(runs_root(args.runs), args.study)))


if __name__ == "__main__":
    main()
