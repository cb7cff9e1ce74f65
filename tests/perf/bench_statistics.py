"""How fast the pool is measured, on one core, beside its two dearest parts alone: the tokenizer and zlib.

    python tests/perf/bench_statistics.py --documents ../shared/data --output tests/perf/results/statistics.json

The tokenizer is a byte-level BPE of 8,192 entries, trained here on the same documents. Every piece is run on the same
text, one after the other, and again; the best of the repetitions counts. Times are processor time of one process: other
processes of the machine slow them down, but do not count. `end to end` reads Parquet and writes the sums.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.artifacts import write_json
from configs.load import load_sources
from mixtures.sources.source import Source, Unit
from mixtures.statistics.batch import Batch
from mixtures.statistics.measure import FEATURES, Job, measure, measure_unit
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

SOURCES = ("refinedweb", "fineweb_edu", "stack_v2", "arxiv", "books")
VOCAB = 8192
BATCH_DOCUMENTS = 500


def best_seconds(work: Callable[[], Any], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def pieces(texts: Sequence[str], tokenizer: Tokenizer, units: Sequence[Unit], scratch: Path) -> dict[str, Any]:
    """Name -> work to be timed."""
    utf8 = [text.encode() for text in texts]
    batches = [list(texts[start : start + BATCH_DOCUMENTS]) for start in range(0, len(texts), BATCH_DOCUMENTS)]

    def prepared() -> list[Batch]:
        made = [Batch(batch, tokenizer) for batch in batches]
        for batch in made:
            _ = batch.utf8, batch.paragraphs, batch.words, batch.tokens, batch.hashes
        return made

    ready = prepared()

    def end_to_end() -> None:
        for number, unit in enumerate(units):
            path = scratch / f"{number}.npz"
            path.unlink(missing_ok=True)
            measure_unit(Job(unit, path, tokenizer.folder, tokenizer.sha256, 1.0))

    return {
        "end to end": end_to_end,
        "all features": lambda: measure(texts, tokenizer),
        "tokenizer alone": lambda: [tokenizer.encode_array(text) for text in texts],
        "zlib level 6 alone": lambda: [zlib.compress(text, 6) for text in utf8],
        "words": lambda: [Batch(batch, tokenizer).words for batch in batches],
        **{f"feature {feature.name}": lambda f=feature: [f.of(batch) for batch in ready] for feature in FEATURES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=Path, default=Path("../shared/data"), help="folder with corpora/")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the results here")
    arguments = parser.parse_args()
    units = [Source(name, load_sources().sources[name], arguments.documents).units()[0] for name in SOURCES]
    texts = [document.text for unit in units for document in unit.documents()]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = train_tokenizer(texts[::20], VOCAB, Path(scratch) / "tokenizer", {"benchmark": 1})
        speeds = {
            name: megabytes / best_seconds(work, arguments.repetitions)
            for name, work in pieces(texts, tokenizer, units, Path(scratch)).items()
        }
    print(f"{megabytes:.1f} MB of {', '.join(SOURCES)}; tokenizer: {tokenizer.engine}, {tokenizer.vocab_size} entries")
    for name, speed in speeds.items():
        print(f"{name:<24}{speed:>9.1f} MB/s{speed / speeds['tokenizer alone']:>8.2f} x the tokenizer alone")
    if arguments.output:
        write_json(
            arguments.output,
            {
                "megabytes": round(megabytes, 1),
                "sources": SOURCES,
                "vocabulary": tokenizer.vocab_size,
                "repetitions": arguments.repetitions,
                "megabytes_per_cpu_second": {name: round(speed, 2) for name, speed in speeds.items()},
                "end_to_end_over_tokenizer_alone": round(speeds["end to end"] / speeds["tokenizer alone"], 3),
            },
        )


if __name__ == "__main__":
    main()
