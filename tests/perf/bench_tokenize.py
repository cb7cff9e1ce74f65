"""How fast text becomes token shards, beside bare encoders and beside Megatron's own path, in one run.

    python tests/perf/bench_tokenize.py --output tests/perf/results/tokenize.json

Every contender takes the same text in every round, in an order that turns from round to round, and the medians of the
rounds are compared; so a machine that is busy or throttled slows them alike. MB are millions of bytes of UTF-8 text.

    shards         this project in one worker process: hash the Parquet files, read, encode, write, hash what is
                   written, sync, manifest
    shards x 2     the same in two (the workers of both are there when the clock starts: they are started once a run)
    tiktoken       encode_ordinary on texts in memory, nothing else
    tokenizers     encode_batch on texts in memory, on one thread
    megatron       tools/preprocess_data.py as documented: JSON lines in, `json.loads` and the Hugging Face tokenizer
                   for each document, one writer that appends each document to an indexed data set; one process
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.artifacts import write_json
from configs.load import load_sources
from configs.schema import SourceSpec
from mixtures.sources.source import Source
from mixtures.tokens.assembly import Assembly
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.parts import write_part
from mixtures.tokens.tokenizer import Tokenizer

GOALS = {"shards / tokenizers": 4.0, "shards / tiktoken": 0.85, "shards x 2 / shards": 1.8}


def corpus(documents: Path, megabytes: float) -> list[str]:
    """The first documents of every source in equal parts, mixed so that every file holds some of each."""
    picked: list[list[str]] = []
    specs = load_sources().sources
    for name, spec in specs.items():
        texts, size = [], 0
        for unit in Source(name, spec, documents).units():
            for document in unit.documents():
                if size < megabytes * 1e6 / len(specs):
                    texts.append(document.text)
                    size += len(document.text.encode())
        picked.append(texts)
    rng = np.random.default_rng(0)
    flat = [text for texts in picked for text in texts]
    return [flat[i] for i in rng.permutation(len(flat))]


def write_documents(texts: list[str], root: Path, files: int) -> Source:
    folder = root / "corpora" / "web"
    folder.mkdir(parents=True)
    for number in range(files):
        table = pa.table({"text": texts[number::files]})
        pq.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")
    return Source("web", SourceSpec(kind="web", display="web", folder="web"), root)


class Workers:
    """Worker processes that have loaded the tokenizer."""

    def __init__(self, tokenizer: Tokenizer, root: Path, number: int) -> None:
        self._pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"))
        self._tokenizer, self._root, self._number = tokenizer, root / f"workers-{number}", number
        documents = [f"document {n}" for n in range(2000 * number)]
        began = time.perf_counter()
        self.shards(write_documents(documents, self._root, files=4 * number))
        self.start_s = time.perf_counter() - began

    def shards(self, source: Source) -> float:
        """Seconds to make the source's shards: `tokens.assembly.assemble` on processes that are there already."""
        folder = self._root / "out" / "web"
        shutil.rmtree(folder.parent, ignore_errors=True)
        began = time.perf_counter()
        assembly = Assembly(source, self._tokenizer, folder)
        for written in self._pool.map(write_part, assembly.jobs()):
            assembly.add(written)
        assert assembly.finish() is not None
        return time.perf_counter() - began

    def close(self) -> None:
        self._pool.shutdown()


def megatron(lines: Path, tokenizer_json: Path, root: Path, eod: int) -> float:
    """Seconds of Megatron's path, from the first line to the finished index."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    encoder = HuggingFaceTokenizer.from_file(str(tokenizer_json))
    began = time.perf_counter()
    builder = IndexedDatasetBuilder(str(root / "megatron.bin"), dtype=DType.optimal_dtype(encoder.get_vocab_size()))
    with lines.open(encoding="utf-8") as stream:
        for line in stream:
            ids = encoder.encode(json.loads(line)["text"], add_special_tokens=False).ids
            ids.append(eod)
            builder.add_document(ids, [len(ids)])
    builder.finalize(str(root / "megatron.idx"))
    return time.perf_counter() - began


def measure(documents: Path, megabytes: float, vocab: int, rounds: int) -> dict[str, object]:
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    texts = corpus(documents, megabytes)
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        tokenizer = train_tokenizer(texts[:: max(1, len(texts) // 2000)], vocab, root / "tokenizer", {})
        assert tokenizer.engine == "tiktoken"
        print(f"{len(texts):,} documents, {size / 1e6:.1f} MB, vocabulary {tokenizer.vocab_size:,}, {rounds} rounds")
        source = write_documents(texts, root, files=8)
        lines = root / "documents.jsonl"
        lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        definition = root / "tokenizer" / "tokenizer.json"
        fast, slow = tokenizer._tiktoken, HuggingFaceTokenizer.from_file(str(definition))
        assert fast is not None

        def timed(work: Callable[[], object]) -> float:
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

        one, two = Workers(tokenizer, root, 1), Workers(tokenizer, root, 2)
        contenders: dict[str, Callable[[], float]] = {
            "shards": lambda: one.shards(source),
            "shards x 2": lambda: two.shards(source),
            "tiktoken": lambda: timed(lambda: [fast.encode_ordinary(text) for text in texts]),
            "tokenizers": lambda: timed(lambda: slow.encode_batch(texts, add_special_tokens=False)),
            "megatron": lambda: megatron(lines, definition, root, tokenizer.eod),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        names = list(contenders)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(contenders[name]())
                print(f"  round {number + 1}: {name:<12}{size / 1e6 / seconds[name][-1]:8.2f} MB/s", flush=True)
        one.close()
        two.close()
    speed = {name: size / 1e6 / statistics.median(values) for name, values in seconds.items()}

    def ratio(a: str, b: str) -> float:
        """Median over the rounds of the ratio within a round."""
        return statistics.median(y / x for x, y in zip(seconds[a], seconds[b], strict=True))

    pairs = [pair.split(" / ") for pair in GOALS] + [["shards", "megatron"]]
    return {
        "megabytes": round(size / 1e6, 1),
        "documents": len(texts),
        "vocabulary": tokenizer.vocab_size,
        "rounds": rounds,
        "mb_per_s": {name: round(value, 2) for name, value in speed.items()},
        "ratios": {f"{a} / {b}": round(ratio(a, b), 2) for a, b in pairs},
        "start_of_two_workers_s": round(two.start_s, 2),
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--documents", type=Path, default=shared, help="folder with corpora/")
    parser.add_argument("--megabytes", type=float, default=40.0, help="of text")
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here, too")
    arguments = parser.parse_args()
    result = measure(arguments.documents, arguments.megabytes, arguments.vocab, arguments.rounds)
    speeds, ratios = result["mb_per_s"], result["ratios"]
    assert isinstance(speeds, dict) and isinstance(ratios, dict)
    print(f"\n{'':<22}{'MB/s':>8}")
    for name, value in speeds.items():
        print(f"{name:<22}{value:>8.2f}")
    print(f"\n{'ratio':<22}{'found':>8}{'goal':>8}")
    for name, value in ratios.items():
        print(f"{name:<22}{value:>8.2f}{GOALS.get(name, float('nan')):>8.2f}".replace("nan", "  -"))
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
