"""Check made token shards, SFT sets and tokenizers byte for byte: `python -m mixtures.verify`.

In: folders, a study, or a whole data folder. Out: a table, or one message that names the first file and document that
is wrong, and exit code 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.arguments import CommandParser
from configs.documents import sft_sets_of, sources_of
from configs.errors import ConfigError, user_errors
from configs.layout import data_root, tokenized_dirs
from configs.load import load_study

if TYPE_CHECKING:
    from mixtures.tokens.verification import Row

EXAMPLES = """examples:
  python -m mixtures.verify                                  everything below ./data (or MAGIC_DATA)
  python -m mixtures.verify --study mini --data /scratch/data
  python -m mixtures.verify data/tokens/default/arxiv --workers 4
"""


def folders_below(data: Path) -> list[Path]:
    """Every tokenizer, source and SFT set of a data folder, the unfinished ones too (but not those in work)."""
    found = [*data.glob("tokenizers/*"), *data.glob("tokens/*/*"), *data.glob("sft/*/*")]
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    text = "Check token shards, SFT sets and tokenizers byte for byte against their manifests."
    parser = CommandParser(prog="python -m mixtures.verify", description=text, examples=EXAMPLES)
    help = "what to check (default: all of --data)"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=help)
    parser.add_common("study", help="what this study uses")
    parser.add_common("data", "workers")
    arguments = parser.parse(argv)
    data = data_root(arguments.data)
    folders = [folder.resolve() for folder in arguments.folders]
    if arguments.study:
        study = load_study(arguments.study)
        made = tokenized_dirs(data, study.tokenizer.name, sources_of(study), sft_sets_of(study))
        folders += made.values()
    folders = folders or folders_below(data)
    if not folders:
        raise ConfigError("nothing to verify", where=data, hint="--data DIR, or name the folders")
    from mixtures.tokens.verification import verify

    _print(verify(folders, workers=arguments.workers))


def _print(rows: Iterable[Row]) -> None:
    print(f"{'kind':<14}{'documents':>14}{'tokens':>18}{'MB':>12}  folder", flush=True)
    for row in rows:
        line = f"{row.kind:<14}{row.documents:>14,}{row.tokens:>18,}{row.bytes / 1e6:>12,.1f}"
        print(f"{line}  {os.path.relpath(row.name)}", flush=True)
    print("all as their manifests say", flush=True)


if __name__ == "__main__":
    main()
