"""python -m mixtures.contamination: search what a study trains on for the benchmarks it is scored on."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path

from configs.arguments import count
from configs.documents import documents_of
from configs.errors import ConfigError, user_errors
from configs.layout import data_root
from configs.load import load_study, parse_overrides

EXAMPLES = """examples:
  python -m mixtures.contamination --study real_small --documents ../shared/data
  python -m mixtures.contamination --study paper --ray                       on the cluster that RAY_ADDRESS names
  python -m mixtures.contamination --study mini --ngram 8                    PaLM's n-grams instead of GPT-3's
"""


@user_errors
def main(argv: Iterable[str] | None = None) -> None:
    arguments = _parser().parse_args(None if argv is None else list(argv))
    if not 0 < arguments.min_words <= arguments.ngram:
        raise ConfigError(
            f"--min-words {arguments.min_words} --ngram {arguments.ngram}", valid="0 < min-words <= ngram"
        )
    study = load_study(arguments.study, parse_overrides(arguments.overrides))
    data = data_root(arguments.data)

    from configs.runtime.cluster import cluster
    from mixtures.contamination.report import lines, read_summary
    from mixtures.contamination.search import Rule
    from mixtures.contamination.study import search_study

    with cluster(arguments.workers) if arguments.ray else contextlib.nullcontext():
        folder = search_study(
            study,
            documents_of(study, arguments.documents, data),
            data,
            Rule(arguments.ngram, arguments.min_words),
            workers=arguments.workers,
            use_ray=arguments.ray,
        )
    print(*lines(read_summary(folder)), f"hits, items and summary: {folder}", sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixtures.contamination",
        description="Search every source and SFT set of a study for the evaluation items of its benchmarks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--study", required=True, metavar="NAME", help="name in configs/studies, or a YAML file")
    parser.add_argument("--documents", type=Path, metavar="DIR", help="folder with corpora/ and benchmarks/")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where results go (default: MAGIC_DATA or ./data)")
    parser.add_argument("--ngram", type=int, default=13, metavar="N", help="words of an n-gram (default: 13)")
    parser.add_argument(
        "--min-words", type=int, default=8, metavar="N", help="shorter texts are not assessable (default: 8)"
    )
    parser.add_argument("--workers", type=count, metavar="N", help="processes (default: one for each CPU)")
    parser.add_argument("--ray", action="store_true", help="on Ray instead of processes of this machine")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the study")
    return parser


if __name__ == "__main__":
    main()
