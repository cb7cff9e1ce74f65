"""`python -m analysis.report`: write a study's report.

In: a study with scores. Out: the path of its index.html, with tables and figures beside it.
"""

from __future__ import annotations

from analysis.panel.studies import SEEDS, SEEDS_HELP, require_study
from configs.arguments import CommandParser
from configs.errors import user_errors
from configs.layout import runs_root


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.report",
        description="Write a study's report: index.html (one file, opens anywhere), tables and figures.",
        examples="examples:\n  python -m analysis.report\n  python -m analysis.report --runs runs --study mini\n"
        "  python -m analysis.report --seeds mean             each mixture's mean over its seeds",
    )
    parser.add_common("runs")
    parser.add_common("study", help="name of the study (default: the one scored last)")
    parser.add_argument("--seeds", choices=SEEDS, default="first", help=SEEDS_HELP)
    args = parser.parse(argv)
    # Behind the parser: it loads numpy and pandas, for which --help need not wait.
    from analysis.report.page import build_report

    print(build_report(require_study(runs_root(args.runs), args.study), args.seeds == "mean"))


if __name__ == "__main__":
    main()
