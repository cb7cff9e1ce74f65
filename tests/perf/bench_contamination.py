"""Items planted in real text: are all found, and how long does it take, beside sets of tuples in plain Python?

    python tests/perf/bench_contamination.py --documents ../shared/data --output tests/perf/results/contamination.json

Evaluation items of all 20 benchmarks are planted into a copy of the corpora, at random places of random documents:
a third as they are, a third in other case, a third with other punctuation and white space. The whole copy is then
searched as `python -m mixtures.contamination --workers 2` does it: wall clock, and processor time of all processes.
The comparison is of one process's processor time on the same sample, which both must answer alike.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.artifacts import write_json
from configs.load import BENCHMARKS, load_benchmark, load_study
from mixtures.contamination.index import Index
from mixtures.contamination.items import Item, read_items
from mixtures.contamination.report import lines, read_summary
from mixtures.contamination.search import GPT3_RULE, open_manifest
from mixtures.contamination.study import search_study
from mixtures.contamination.words import Batch, words

LIMIT_S = 120.0
SAMPLE_BYTES = 2_000_000
"""Of each source, for the comparison."""
GAPS = (" ", "  ", "\n", " - ", ", ", "; ", "... ", " (", ") ", "_", "/")
CHANGES = ("exact", "case", "punctuation")


def changed(text: str, how: str, rng: random.Random) -> str:
    if how == "case":
        return "".join(rng.choice((letter.upper(), letter.lower())) for letter in text)
    if how == "punctuation":
        return "".join(word + rng.choice(GAPS) for word in words(text))
    return text


def plant(documents: Path, copy: Path, items: Sequence[Item], count: int) -> dict[tuple[Any, ...], str]:
    """Write the corpora with planted items; returns (source, unit, row, benchmark, example_id, field) -> change."""
    rng = random.Random(0)
    pairs = [(item, field) for item in items for field, text in item.texts.items() if len(words(text)) >= 8]
    files = sorted(path for path in documents.glob("corpora/*/*.parquet") if path.parent.name != "sft")
    tables = {path: pq.read_table(path, columns=["text"])["text"].to_pylist() for path in files}
    planted = {}
    # No document twice: a second text might be planted into the middle of the first.
    places = rng.sample([(path, row) for path in files for row in range(len(tables[path]))], count)
    for number, ((item, field), (path, row)) in enumerate(zip(rng.sample(pairs, count), places, strict=True)):
        how = CHANGES[number % len(CHANGES)]
        text = tables[path][row]
        cut = rng.randint(0, len(text))
        tables[path][row] = f"{text[:cut]}\n{changed(item.texts[field], how, rng)}\n{text[cut:]}"
        planted[path.parent.name, path.name, row, item.benchmark, item.example_id, field] = how
    for path, texts in tables.items():
        target = copy / path.relative_to(documents)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": texts}), target, compression="zstd")
    for name in ("corpora/sft", "benchmarks"):
        (copy / name).symlink_to(documents / name)
    return planted


def search_whole(root: Path, data: Path) -> dict[str, Any]:
    def cpu() -> float:
        return sum(os.times()[:4])

    began, cpu_began = time.perf_counter(), cpu()
    folder = search_study(load_study("real_small"), root, data, workers=2)
    seconds, cpu_seconds = time.perf_counter() - began, cpu() - cpu_began
    text_bytes = sum(read["utf8_bytes"] for read in open_manifest(folder)["read"].values())
    return {
        "folder": folder,
        "text_mb": text_bytes / 1e6,
        "wall_s": seconds,
        "cpu_s": cpu_seconds,
        "mb_per_s": text_bytes / 1e6 / seconds,
    }


def missed(folder: Path, planted: dict[tuple[Any, ...], str]) -> dict[str, dict[str, int]]:
    keys = ("source", "unit", "row", "benchmark", "example_id", "field")
    whole = pq.read_table(folder / "hits.parquet", filters=[("overlap", "=", 1.0)]).select(keys).to_pylist()
    found = {tuple(hit.values()) for hit in whole}
    how = {change: [key in found for key, value in planted.items() if value == change] for change in CHANGES}
    return {change: {"planted": len(hits), "missed": hits.count(False)} for change, hits in how.items()}


def compare(root: Path, items: Sequence[Item]) -> dict[str, Any]:
    """Seconds of processor time for a sample of every source, index ready, text in memory."""
    texts = [text for item in items for text in item.texts.values()]
    index, _ = Index.build(texts, *GPT3_RULE)
    index.find(Batch(["warm up"]))
    sets: dict[int, set[tuple[str, ...]]] = {}
    for t, (start, stop) in enumerate(zip(index.bounds[:-1].tolist(), index.bounds[1:].tolist(), strict=True)):
        body, length = [index.vocabulary[i] for i in index.ids[start:stop]], int(index.lengths[t])
        sets.setdefault(length, set()).update(tuple(body[i : i + length]) for i in range(len(body) - length + 1))
    batches = list(_sample(root))
    size = sum(len(text.encode()) for batch in batches for text in batch)

    began = time.process_time()
    fast = sum(_distinct(index, batch) for batch in batches)
    fast_s = time.process_time() - began
    began = time.process_time()
    plain = sum(_distinct_plain(sets, text) for batch in batches for text in batch)
    plain_s = time.process_time() - began
    assert fast == plain, f"{fast} n-grams found, plain Python finds {plain}"
    return {
        "sample_mb": size / 1e6,
        "ngrams_found": fast,
        "mb_per_cpu_s": size / 1e6 / fast_s,
        "plain_mb_per_cpu_s": size / 1e6 / plain_s,
        "ratio": plain_s / fast_s,
    }


def _distinct(index: Index, batch: list[str]) -> int:
    """Different n-grams found, summed over documents."""
    found = index.find(Batch(batch))
    text = index.text_at(found.place)
    spans = zip(found.document.tolist(), found.place.tolist(), index.lengths[text].tolist(), strict=True)
    return len({(d, tuple(index.ids[place : place + length].tolist())) for d, place, length in spans})


def _distinct_plain(sets: dict[int, set[tuple[str, ...]]], text: str) -> int:
    body = words(text)
    grams = {tuple(body[i : i + n]) for n in sets for i in range(len(body) - n + 1)}
    return sum(gram in sets[len(gram)] for gram in grams)


def _sample(root: Path) -> Iterator[list[str]]:
    for folder in sorted(root.glob("corpora/*")):
        if folder.name != "sft":
            size, batch = 0, []
            for text in pq.read_table(folder / "part-00000.parquet")["text"].to_pylist():
                if size < SAMPLE_BYTES:
                    batch.append(text)
                    size += len(text)
            yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=Path, required=True, metavar="DIR", help="as of a local study")
    parser.add_argument("--planted", type=int, default=3000, metavar="N", help="items to plant (default: 3000)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers here")
    arguments = parser.parse_args()
    documents = arguments.documents.resolve()
    items = [item for slug in BENCHMARKS for item in read_items(load_benchmark(slug), documents)]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "documents"
        planted = plant(documents, copy, items, arguments.planted)
        whole = search_whole(copy, Path(scratch) / "data")
        found = missed(whole.pop("folder"), planted)
        untouched = search_whole(documents, Path(scratch) / "untouched")
        print(*lines(read_summary(untouched.pop("folder"))), sep="\n")
        comparison = compare(copy, items)
    result = {
        "planted": found,
        "with_planted": whole,
        "untouched": untouched,
        "limit_s": LIMIT_S,
        "met": max(whole["wall_s"], untouched["wall_s"]) < LIMIT_S and not any(n["missed"] for n in found.values()),
        "comparison": comparison,
    }
    for change, counts in found.items():
        print(f"planted, {change:<12} {counts['planted']:>6,}   missed {counts['missed']}")
    for name, run in (("with planted items", whole), ("as it is", untouched)):
        print(
            f"{name:<20} {run['text_mb']:.1f} MB in {run['wall_s']:.1f} s with 2 workers ({run['mb_per_s']:.1f} MB/s; "
            f"{run['cpu_s']:.1f} s of processor time, start and index included; limit {LIMIT_S:.0f} s)"
        )
    print(
        f"one process, index ready: {comparison['mb_per_cpu_s']:.1f} MB/s, plain Python "
        f"{comparison['plain_mb_per_cpu_s']:.1f} MB/s, ratio {comparison['ratio']:.1f}"
    )
    if arguments.output:
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
