"""python -m mixtures.contamination: search what a study trains on for the benchmarks it is scored on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from configs.documents import read_study_arguments, study_parser
from configs.errors import ConfigError, user_errors

EXAMPLES = """examples:
  python -m mixtures.contamination --study real_small --documents ../shared/data
  python -m mixtures.contamination --study paper --ray                       on the cluster that RAY_ADDRESS names
  python -m mixtures.contamination --study mini --ngram 8                    PaLM's n-grams instead of GPT-3's
"""


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    text = "Search every source and SFT set of a study for the evaluation items of its benchmarks."
    parser = study_parser("python -m mixtures.contamination", text, EXAMPLES)
    add = parser.add_argument
    add("--ngram", type=int, default=13, metavar="N", help="words of an n-gram (default: 13)")
    add("--min-words", type=int, default=8, metavar="N", help="shorter texts are not assessable (default: 8)")
    arguments = parser.parse(argv)
    if not 0 < arguments.min_words <= arguments.ngram:
        raise ConfigError(
            f"--min-words {arguments.min_words} --ngram {arguments.ngram}", valid="0 < min-words <= ngram"
        )
    study, documents, data = read_study_arguments(arguments)

    from configs.runtime.cluster import cluster
    from mixtures.contamination.report import lines, read_summary
    from mixtures.contamination.search import Rule
    from mixtures.contamination.study import search_study

    rule, workers = Rule(arguments.ngram, arguments.min_words), arguments.workers
    with cluster(workers) if arguments.ray else contextlib.nullcontext():
        folder = search_study(study, documents, data, rule, workers=workers, use_ray=arguments.ray)
    print(*lines(read_summary(folder)), f"hits, items and summary: {folder}", sep="\n")


if __name__ == "__main__":
    main()
