"""How long the index of a blend takes, beside megatron-core's own, and how far each strays from the weights.

    python tests/perf/bench_blend.py --output tests/perf/results/blend.json

Simulated: 9 sources with 2 million documents and 12.3 billion tokens (log-normal lengths), blended into 12 billion
tokens at context 4096. Rows that speak of 1,000 parts open real folders of shards, whose .idx files are whole and whose
.bin files are sparse, for nothing reads the tokens; behind the others there are lengths alone. Weights of nine decimals
have no short period; those of the paper's V1P0 repeat every 40 samples. Times are the best of several. Limits hold for
wall clock; ratios are of CPU time, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs.artifacts import fingerprint, write_json
from configs.load import load_mixture
from mixtures.blend.blend import Blend
from mixtures.blend.schedule import quotas, schedule
from mixtures.tokens.shards import ROWS_DTYPE, SHARDS_VERSION, Shards, index_bytes, part_name

CONTEXT, BATCH = 4096, 256
SAMPLES = 12_000_000_000 // (CONTEXT * BATCH) * BATCH
DOCUMENTS, PARTS = 2_000_000, 1_000
LIMITS_S = {"index": 2.0, "index of 1,000 parts": 60.0, "cached": 0.2}


def nine_weights() -> dict[str, float]:
    """Nine decimals, from 0.6 % to 30 %."""
    raw = np.geomspace(1, 50, 9)
    return {f"source{i}": round(float(weight), 9) for i, weight in enumerate(raw / raw.sum())}


def document_lengths(weights: Mapping[str, float]) -> dict[str, npt.NDArray[np.int32]]:
    """Two million documents; each source holds about 2 % more tokens than the blend takes from it."""
    rng = np.random.default_rng(0)
    lengths = {}
    for name, weight in weights.items():
        raw = rng.lognormal(0, 1, round(DOCUMENTS * weight))
        wanted = weight * SAMPLES * CONTEXT * 1.02
        lengths[name] = np.maximum(1, raw * (wanted / raw.sum())).astype(np.int32)
    return lengths


def lengths_only(lengths: Mapping[str, npt.NDArray[np.int32]]) -> dict[str, Any]:
    """As much of Shards as an index needs."""
    return {
        name: SimpleNamespace(
            lengths=each,
            num_tokens=int(each.sum(dtype=np.int64)),
            manifest={"tokenizer": "simulated"},
            fingerprint=fingerprint(name),
        )
        for name, each in lengths.items()
    }


def write_sparse_shards(root: Path, lengths: Mapping[str, npt.NDArray[np.int32]]) -> None:
    """The same documents in a thousand parts."""
    total = sum(map(len, lengths.values()))
    for name, each in lengths.items():
        folder = root / name
        (folder / "validation").mkdir(parents=True)
        files = {}
        for number, part in enumerate(np.array_split(each, max(1, round(PARTS * len(each) / total)))):
            stem = folder / part_name(number)
            stem.with_suffix(".idx").write_bytes(index_bytes(part, np.dtype(np.int32)))
            np.save(stem.with_suffix(".rows.npy"), np.zeros(len(part), dtype=ROWS_DTYPE))
            with stem.with_suffix(".bin").open("wb") as stream:
                stream.truncate(4 * int(part.sum(dtype=np.int64)))
            for suffix in (".bin", ".idx", ".rows.npy"):
                path = stem.with_suffix(suffix)
                files[path.name] = {"bytes": path.stat().st_size, "sha256": "simulated"}
        counts = {"documents": len(each), "tokens": int(each.sum(dtype=np.int64))}
        held_out: dict[str, Any] = {"files": {}, "documents": 0, "tokens": 0}
        head = {"version": SHARDS_VERSION, "kind": "tokens", "source": name, "tokenizer": "simulated"}
        head |= {"dtype": "int32", "units": []}
        write_json(folder / "manifest.json", head | counts | {"files": files, "validation": held_out})


def megatron_index(lengths: Mapping[str, npt.NDArray[np.int32]], weights: Mapping[str, float]) -> None:
    """What megatron-core's GPTDataset and BlendedDataset compute for the same blend, without writing it."""
    from megatron.core.datasets import gpt_dataset, helpers

    state = np.random.RandomState(0)
    for each in lengths.values():
        documents = np.arange(len(each), dtype=np.int32)
        document_index = gpt_dataset._build_document_index(documents, 1, state, False)
        tokens = int(each.sum(dtype=np.int64))
        windows = helpers.build_sample_idx(each, document_index, CONTEXT, 1, tokens, True, True)
        gpt_dataset._build_shuffle_index(len(windows) - 1, len(windows) - 1, state)
    megatron_schedule(list(weights.values()))


def megatron_schedule(weights: list[float]) -> npt.NDArray[np.int16]:
    from megatron.core.datasets import helpers

    source, rank = np.zeros(SAMPLES, dtype=np.int16), np.zeros(SAMPLES, dtype=np.int64)
    helpers.build_blending_indices(source, rank, weights, len(weights), SAMPLES, False)
    return source


def drift(source: npt.NDArray[np.int16], weights: list[float]) -> float:
    """The furthest that any source's count is from its share after any prefix, in samples."""
    n = np.arange(1, len(source) + 1)
    return max(float(np.abs(np.cumsum(source == i) - n * weight).max()) for i, weight in enumerate(weights))


class Seconds(NamedTuple):
    wall: float
    cpu: float


def seconds(work: Callable[[], object], repeat: int) -> Seconds:
    times = []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return Seconds(*map(min, zip(*times, strict=True)))


def measure(repeat: int) -> dict[str, Any]:
    import megatron.core.datasets.gpt_dataset  # noqa: F401  (its import is not what is measured)

    weights = nine_weights()
    paper = load_mixture("V1P0").weights
    lengths = document_lengths(weights)
    fakes = lengths_only(lengths)

    def index(shards: Mapping[str, Any], folder: Path | None = None) -> Blend:
        return Blend(shards, weights, CONTEXT, 0, SAMPLES, folder)

    times = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = iter(root / f"index{n}" for n in range(100))
        times["schedule, nine decimals"] = seconds(lambda: schedule(quotas(list(weights.values())), SAMPLES), repeat)
        times["schedule, V1P0"] = seconds(lambda: schedule(quotas(list(paper.values())), SAMPLES), repeat)
        times["megatron-core's schedule"] = seconds(lambda: megatron_schedule(list(weights.values())), repeat)
        times["index in memory"] = seconds(lambda: index(fakes), repeat)
        times["megatron-core's index in memory"] = seconds(lambda: megatron_index(lengths, weights), repeat)
        times["index"] = seconds(lambda: index(fakes, next(folders)), repeat)
        index(fakes, root / "kept")
        times["cached"] = seconds(lambda: index(fakes, root / "kept"), repeat)

        write_sparse_shards(root / "tokens", lengths)

        def open_shards() -> dict[str, Shards]:
            return {name: Shards.open(root / "tokens" / name) for name in weights}

        times["index of 1,000 parts"] = seconds(lambda: index(open_shards(), next(folders)), repeat)
        shards = open_shards()
        times["opening 1,000 parts"] = seconds(open_shards, repeat)
        index(shards, root / "parts")
        times["cached, 1,000 parts open"] = seconds(lambda: index(shards, root / "parts"), repeat)
    drifts = {
        f"{who}, {what}": drift(source, list(chosen.values()))
        for what, chosen in (("nine decimals", weights), ("V1P0", paper))
        for who, source in (
            ("ours", schedule(quotas(list(chosen.values())), SAMPLES)),
            ("megatron-core", megatron_schedule(list(chosen.values()))),
        )
    }
    return {
        "samples": SAMPLES,
        "documents": sum(map(len, lengths.values())),
        "tokens": SAMPLES * CONTEXT,
        "seconds": {name: each.wall for name, each in times.items()},
        "cpu_seconds": {name: each.cpu for name, each in times.items()},
        "limits_s": LIMITS_S,
        "cpu_ratio": {
            "index in memory / megatron-core's": times["index in memory"].cpu
            / times["megatron-core's index in memory"].cpu,
            "schedule / megatron-core's": times["schedule, nine decimals"].cpu / times["megatron-core's schedule"].cpu,
        },
        "furthest_from_share_in_samples": drifts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the index of a blend.")
    parser.add_argument("--output", type=Path, help="write the numbers here")
    parser.add_argument("--repeat", type=int, default=3, help="best of this many (default: 3)")
    arguments = parser.parse_args()
    found = measure(arguments.repeat)
    for name, value in found["seconds"].items():
        limit = LIMITS_S.get(name)
        verdict = "" if limit is None else f"   limit {limit:g} s: {'met' if value < limit else 'MISSED'}"
        print(f"{name:<34} {value:8.3f} s (CPU {found['cpu_seconds'][name]:.3f} s){verdict}")
    for name, value in found["cpu_ratio"].items():
        print(f"{name:<34} {value:8.2f}")
    for name, value in found["furthest_from_share_in_samples"].items():
        print(f"{'furthest from share, ' + name:<48} {value:.4f} samples")
    if arguments.output:
        write_json(arguments.output, found)


if __name__ == "__main__":
    main()
