"""How many mixtures and seeds would be enough? From the noise that a study measured.

In: a study that was scored. Out: the table of `analysis.planner.requirements`.

    python -m analysis.planner --r 0.6 --difference 2
"""

from __future__ import annotations

from configs.arguments import CommandParser
from configs.errors import ConfigError, user_errors
from configs.layout import runs_root

EXAMPLES = """examples:
  python -m analysis.planner                         a true r of 0.6, power 0.8, with 1, 3 and 5 seeds
  python -m analysis.planner --study mini --r 0.4 --power 0.9 --seeds 1,2,4,8
  python -m analysis.planner --difference 1          seeds that two mixtures need which are a point of accuracy apart
"""


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(
        prog="python -m analysis.planner",
        description="How many mixtures and seeds a correlation or a decision of a given size needs, by benchmark.",
        examples=EXAMPLES,
    )
    parser.add_common("runs")
    parser.add_common("study", help="name of the study (default: the one scored last)")
    parser.add_argument("--r", type=float, default=0.6, help="true correlation of PT with SFT (default: 0.6)")
    parser.add_argument(
        "--difference", type=float, default=2.0, metavar="PP", help="of two mixtures, in points (default: 2)"
    )
    parser.add_argument("--power", type=float, default=0.8, help="chance of finding what is there (default: 0.8)")
    parser.add_argument("--seeds", default="1,3,5", help="seeds of each mixture to plan for (default: 1,3,5)")
    parser.add_argument("--metric", choices=("accuracy", "confidence"), default="accuracy")
    args = parser.parse(argv)
    if not 0 < args.r < 1:
        raise ConfigError(f"--r is {args.r}", valid="between 0 and 1")
    if not args.difference > 0:
        raise ConfigError(f"--difference is {args.difference}", valid="points above 0, e.g. 2")
    if not 0.5 <= args.power < 1:
        raise ConfigError(f"--power is {args.power}", valid="at least 0.5, below 1")
    seeds = _parse_seeds(args.seeds)
    # Behind the parser: these load numpy and pandas, for which --help need not wait.
    from analysis.panel.load import load_panel
    from analysis.panel.studies import require_study
    from analysis.planner.requirements import Goal, planner_table
    from analysis.rendering.writers import as_text

    panel = load_panel(require_study(runs_root(args.runs), args.study))
    print(as_text(planner_table(panel, Goal(args.r, args.power, args.difference), seeds, args.metric)))


def _parse_seeds(text: str) -> tuple[int, ...]:
    """Raises ConfigError for anything but whole numbers from 1 between commas."""
    try:
        seeds = tuple(map(int, text.split(",")))
    except ValueError:
        seeds = (0,)
    if min(seeds) < 1:
        raise ConfigError(f"--seeds is {text!r}", valid="whole numbers from 1, e.g. 1,3,5")
    return seeds


if __name__ == "__main__":
    main()
