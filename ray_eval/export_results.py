"""Our scores as the results JSON of lm-evaluation-harness, for whatever reads that.

In: score files. Out: <out>/<checkpoint>/results_<date>.json for each checkpoint and prompt variant, as
`ray_eval.harnesses.lm_eval_results` says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import user_errors
from configs.layout import StudyFolder, runs_root

EXAMPLES = """\
examples:
  python -m ray_eval.export_results --study mini --out lm_eval_results       every checkpoint of a study
  python -m ray_eval.export_results runs/mini/scores/mini_s/V1P0/seed0/pt/step-0000585.parquet --out lm_eval_results
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(prog="python -m ray_eval.export_results", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="*", type=Path, help="score files, or folders of them (default: --study)")
    parser.add_common("study", metavar="NAME", help="every score file of this study")
    parser.add_common("runs", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    add("--out", metavar="DIR", type=Path, required=True, help="folder that gets one folder a checkpoint")
    given = parser.parse(arguments)
    if bool(given.paths) == bool(given.study):
        parser.error("name score files, or a study with --study")
    return given


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    from ray_eval.harnesses.lm_eval_results import export_results

    for path in export_results(given.paths or [StudyFolder(runs_root(given.runs), given.study).scores], given.out):
        print(path)


if __name__ == "__main__":
    main()
