"""Two checkpoints on the same examples: which is better, and is the difference more than chance?

In: two score files, or folders with one checkpoint's. Out: the table of `analysis.compare.comparison`.

    python -m analysis.compare runs/mini/scores/mini_m/V1P0/seed0/pt runs/mini/scores/mini_m/V2P0/seed0/pt
"""

from __future__ import annotations

from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import user_errors
from configs.metrics import NORMALISATIONS

EXAMPLES = """examples:
  python -m analysis.compare A.parquet B.parquet
  python -m analysis.compare runs/mini/scores/mini_m/V1P0/seed0/pt runs/mini/scores/mini_m/V1P0/seed0/sft-mini
  python -m analysis.compare A.parquet B.parquet --normalisation char --format csv
"""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.compare",
        description="Compare two checkpoints example by example: difference of accuracy, interval, exact McNemar p.",
        examples=EXAMPLES,
    )
    parser.add_argument("a", type=Path, help="score file, or a folder that holds those of one checkpoint")
    parser.add_argument("b", type=Path, help="the other; differences are B - A")
    parser.add_argument("--normalisation", choices=[*filter(None, NORMALISATIONS)], default="sum", help="default: sum")
    parser.add_argument("--format", choices=("text", "csv", "md", "tex"), default="text", help="default: text")
    args = parser.parse(argv)
    # Behind the parser: these load numpy and pandas, for which --help need not wait.
    from analysis.compare.comparison import compare_checkpoints
    from analysis.rendering.writers import FORMS

    print(FORMS[args.format](compare_checkpoints(args.a, args.b, args.normalisation)).rstrip("\n"))


if __name__ == "__main__":
    main()
