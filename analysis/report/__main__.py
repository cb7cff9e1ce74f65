"""`python -m analysis.report`: write a study's report.

In: a study with scores. Out: the path of its index.html, with tables and figures beside it.
"""

from __future__ import annotations

import argparse

from configs.errors import user_errors
from configs.layout import runs_root


@user_errors
def main(argv: list[str] | None = None) -> None:
    from analysis.panel.studies import SEEDS, SEEDS_HELP, require_study

    parser = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Write a study's report: index.html (one file, opens anywhere), tables and figures.",
        epilog="examples:\n  python -m analysis.report\n  python -m analysis.report --runs runs --study mini\n"
        "  python -m analysis.report --seeds mean             each mixture's mean over its seeds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    parser.add_argument("--study", help="name of the study (default: the one scored last)")
    parser.add_argument("--seeds", choices=SEEDS, default="first", help=SEEDS_HELP)
    args = parser.parse_args(argv)
    study = require_study(runs_root(args.runs), args.study)
    from analysis.report.page import build_report

    print(build_report(study, args.seeds == "mean"))


if __name__ == "__main__":
    main()
