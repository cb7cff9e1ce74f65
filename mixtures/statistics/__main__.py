"""`python -m mixtures.statistics`: measure every source of a study (see `mixtures.statistics.study`)."""

from __future__ import annotations

from collections.abc import Sequence

from configs.arguments import count
from configs.documents import read_study_arguments, study_parser
from configs.errors import ConfigError, user_errors

EXAMPLES = """examples:
  python -m mixtures.statistics --study mini
  python -m mixtures.statistics --study real_small --documents ../shared/data --workers 2
  python -m mixtures.statistics --study paper --units 4 --share 0.01 --ray    (some documents of four files a source)
"""


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    text = "Measure every source of a study: lengths, compression, diversity, style, cross-entropies."
    parser = study_parser("python -m mixtures.statistics", text, EXAMPLES)
    add = parser.add_argument
    add("--share", type=float, default=1.0, metavar="X", help="of the documents, by hash (default: 1)")
    add("--units", type=count, metavar="N", help="files of each source, by hash (default: all)")
    arguments = parser.parse(argv)
    if not 0 < arguments.share <= 1:
        raise ConfigError(f"--share {arguments.share}: not a share of the documents", valid="above 0, at most 1")
    study, documents, data = read_study_arguments(arguments, parts=("corpora",))

    from mixtures.statistics.study import measure_study

    options = {"share": arguments.share, "max_units": arguments.units}
    measure_study(study, documents, data, workers=arguments.workers, use_ray=arguments.ray, **options)


if __name__ == "__main__":
    main()
