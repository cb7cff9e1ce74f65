"""Scores that you already have, from lm-evaluation-harness or lighteval, as score files of a study.

In: lm-eval's `--log_samples` JSONL or lighteval's `--save-details` Parquet, each with its results JSON, as they lie in
the harness's output folder; and what no harness records about a model (its scale, mixture, stage, step, tokens). Out:
<runs>/<study>/scores/**/step-<n>.parquet, one file for each model, which `python -m analysis.tables` reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import user_errors

EXAMPLES = """\
examples:
  python -m ray_eval.import_results lm_eval_out/my__model --study mine --scale 240m --mixture V1P0 --step 5722 --tokens 12e9
  python -m ray_eval.import_results lm_eval_out lighteval_out --study mine --models models.yaml

models.yaml says what many models are, by the name the harness recorded or by that of its output folder:
  models:
    org/base-v1p0: {scale: 240m, mixture: V1P0, step: 5722, tokens: 12000000000}
    org/chat-v1p0: {scale: 240m, mixture: V1P0, stage: SFT, recipe: tulu, step: 900, tokens: 58000000}
models.csv says the same in the columns model,scale,mixture,stage,recipe,seed,step,tokens.

what is null, since no harness logs it: unconditional log-probabilities and tokens of a candidate (lighteval logs
tokens), truncation. What is turned: MultiRC's gold, which lm-eval inverts. What is refused: other prompts than
lm-eval 0.4.13's, lines that are cut or altered, a task twice. What is skipped, by name: tasks that are not benchmarks
of this project. Every model of a study must have been scored on the same examples (analysis checks it).
"""  # noqa: E501


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(prog="python -m ray_eval.import_results", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", type=Path, help="output folders of a harness, or single files of samples")
    parser.add_common("study", metavar="NAME", required=True, help="study that gets the scores")
    parser.add_common("runs", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    add("--models", metavar="FILE", type=Path, help="YAML or CSV: model -> what it is, for many at once")
    one = parser.add_argument_group("one model, without --models")
    one.add_argument("--scale", metavar="NAME", help="e.g. 240m")
    one.add_argument("--mixture", metavar="NAME", help="e.g. V1P0")
    one.add_argument("--stage", choices=("PT", "SFT"), default="PT", help="default: PT")
    one.add_argument("--recipe", metavar="NAME", default="", help="of an SFT checkpoint")
    one.add_argument("--seed", metavar="K", type=int, default=0, help="default: 0")
    one.add_argument("--step", metavar="N", type=int, help="optimizer steps trained")
    one.add_argument("--tokens", metavar="N", type=float, help="tokens trained, e.g. 12e9")
    add("--replace", action="store_true", help="overwrite a score file that is there")
    return parser.parse(arguments)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    from ray_eval.harnesses.importer import import_results  # pyarrow takes long, --help does not

    import_results(given)


if __name__ == "__main__":
    main()
