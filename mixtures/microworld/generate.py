"""Write the microworld to disk, in the folder layout of a real data set: corpora/ and benchmarks/ of Parquet files.

In: a folder and a size. Out: `<folder>/corpora/<source>/part-00000.parquet`, `<folder>/corpora/sft/…`,
`<folder>/benchmarks/<slug>/<split>.parquet`, `manifest.json`; the same bytes of text on every machine.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.arguments import CommandParser
from configs.artifacts import MANIFEST, atomic_folder, describe_file, fingerprint, read_object, verify_files, write_json
from configs.errors import user_errors
from configs.layout import data_root, microworld_dir
from configs.load import BENCHMARKS, load_benchmark
from mixtures.microworld import benchmarks, conversations, registers, world
from mixtures.microworld.declaration import FILE, shares

VERSION = 1
EVALUATION_ROWS = 400
TRAIN_ROWS = 200
SFT_ROWS = 2000


def source_texts(source: str, size_bytes: float) -> Iterator[str]:
    """Documents of one source until `size_bytes` of UTF-8 are reached; relations are drawn with the declared shares."""
    rng = random.Random(f"microworld/source/{source}")
    relations = [*world.RELATIONS.values(), None]
    weights = list(shares()[source].values())
    # None, the last, stands for filler: a document without a fact.
    weights.append(1.0 - sum(weights))
    written = 0
    while written < size_bytes:
        text = registers.document(source, rng.choices(relations, weights)[0], rng)
        written += len(text.encode())
        yield text


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _inputs(megabytes: float) -> str:
    """Fingerprint of everything the files follow from: size and the code of the generator."""
    code = [Path(str(m.__file__)) for m in (benchmarks, conversations, registers, world)]
    code += [Path(__file__), FILE, world.FILE]
    return fingerprint([VERSION, megabytes, {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in code}])


def generate(folder: Path, megabytes: float = 2.5) -> Path:
    """Write the microworld (`megabytes` million bytes of text a source) unless it is already there; returns `folder`.

    Raises ArtifactError where the folder is there but altered.
    """
    inputs = _inputs(megabytes)
    if (folder / MANIFEST).is_file():
        manifest = read_object(folder / MANIFEST)
        if manifest.get("inputs") == inputs:
            verify_files(folder, manifest["files"])
            return folder
    with atomic_folder(folder) as temporary:
        for source in shares():
            rows = [
                {"text": text, "id": f"{source}-{i}", "source": source}
                for i, text in enumerate(source_texts(source, megabytes * 1e6))
            ]
            _write(temporary / "corpora" / source / "part-00000.parquet", rows)
        _write(temporary / "corpora" / "sft" / "part-00000.parquet", conversations.conversations(SFT_ROWS))
        for slug in BENCHMARKS:
            split = load_benchmark(slug).split_in(local=True)
            for name, count in ((split, EVALUATION_ROWS), ("train", TRAIN_ROWS)):
                _write(temporary / "benchmarks" / slug / f"{name}.parquet", benchmarks.rows(slug, name, count))
        files = {str(path.relative_to(temporary)): describe_file(path) for path in sorted(temporary.rglob("*.parquet"))}
        manifest = {"version": VERSION, "synthetic": True, "inputs": inputs, "megabytes": megabytes, "files": files}
        write_json(temporary / MANIFEST, manifest, sealed=True)
    return folder


@user_errors
def main() -> None:
    example = "example: python -m mixtures.microworld.generate --megabytes 2.5 --folder data/microworld"
    parser = CommandParser(description=__doc__.split("\n")[0], examples=example)
    parser.add_argument("--folder", type=Path, help="where to write (default: <data>/microworld)")
    parser.add_argument("--megabytes", type=float, default=2.5, help="text of each source, in millions of bytes")
    args = parser.parse()
    print(generate(args.folder or microworld_dir(data_root()), args.megabytes))


if __name__ == "__main__":
    main()
