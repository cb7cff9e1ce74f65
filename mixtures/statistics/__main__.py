"""`python -m mixtures.statistics`: measure every source of a study (see `mixtures.statistics.study`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from configs.arguments import count
from configs.documents import documents_of
from configs.errors import ConfigError, user_errors
from configs.layout import data_root
from configs.load import load_study, parse_overrides

EXAMPLES = """examples:
  python -m mixtures.statistics --study mini
  python -m mixtures.statistics --study real_small --documents ../shared/data --workers 2
  python -m mixtures.statistics --study paper --units 4 --share 0.01 --ray    (some documents of four files a source)
"""


@user_errors
def main(argv: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m mixtures.statistics",
        description="Measure every source of a study: lengths, compression, diversity, style, cross-entropies.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--study", required=True, metavar="NAME", help="name in configs/studies, or a YAML file")
    parser.add_argument("--documents", type=Path, metavar="DIR", help="folder with corpora/ (default: the study's)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where artefacts lie (default: MAGIC_DATA or ./data)")
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the documents, by hash (default: 1)")
    parser.add_argument("--units", type=count, metavar="N", help="files of each source, by hash (default: all)")
    parser.add_argument("--workers", type=count, metavar="N", help="processes at a time (default: one for each CPU)")
    parser.add_argument("--ray", action="store_true", help="work on Ray: RAY_ADDRESS, else a cluster of this machine")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the study")
    arguments = parser.parse_args(None if argv is None else list(argv))
    if not 0 < arguments.share <= 1:
        raise ConfigError(f"--share {arguments.share}: not a share of the documents", valid="above 0, at most 1")
    data = data_root(arguments.data)
    study = load_study(arguments.study, parse_overrides(arguments.overrides))

    from mixtures.statistics.study import measure_study

    measure_study(
        study,
        documents_of(study, arguments.documents, data, parts=("corpora",)),
        data,
        share=arguments.share,
        max_units=arguments.units,
        workers=arguments.workers,
        use_ray=arguments.ray,
    )


if __name__ == "__main__":
    main()
