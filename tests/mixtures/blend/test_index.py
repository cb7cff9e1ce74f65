"""The index on disk: the same as the one in memory, found by content, rebuilt when damaged, safe among processes."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_blend import WEIGHTS, memory, three_sources

from configs.artifacts import read_json, write_json
from mixtures.blend import index
from mixtures.blend.blend import Blend
from mixtures.blend.index import Index


def blend(indices: Path | None, num_samples: int = 200, **changes: Any) -> Blend:
    options = {"shards": three_sources(), "weights": WEIGHTS, "context_tokens": 16, "seed": 1} | changes
    return Blend(**options, num_samples=num_samples, indices=indices)


def samples(blend: Blend) -> list[list[int]]:
    return [blend[i].tolist() for i in range(len(blend))]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the indices that were built, in order."""
    lengths: list[int] = []

    def build(*arguments: Any) -> Index:
        lengths.append(arguments[-1])
        return original(*arguments)

    original = index.build_index
    monkeypatch.setattr("mixtures.blend.blend.build_index", build)
    return lengths


def test_a_second_blend_maps_what_the_first_wrote(tmp_path: Path, built: list[int]) -> None:
    expected = samples(blend(None))
    first, second = blend(tmp_path), blend(tmp_path)
    assert samples(first) == samples(second) == expected
    assert built == [200, 200]
    assert [p.name for p in tmp_path.iterdir()] == [first.fingerprint]
    for array in (second.index.source, second.index.window, *second.index.windows["web"]):
        assert not array.flags.owndata and not array.flags.writeable


def test_a_shorter_run_uses_a_longer_index_and_a_longer_one_replaces_it(tmp_path: Path, built: list[int]) -> None:
    longest = samples(blend(None, 500))
    kept = blend(tmp_path, 200)
    assert samples(blend(tmp_path, 80)) == longest[:80]
    assert samples(blend(tmp_path, 500)) == longest
    assert samples(blend(tmp_path, 200)) == samples(kept) == longest[:200], "a mapped index outlives its replacement"
    assert built == [500, 200, 500]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_changes_samples_has_an_index_of_its_own(tmp_path: Path, built: list[int]) -> None:
    changed_shards = three_sources() | {"books": memory([7, 30, 2, 20])}
    for changes in ({}, {"seed": 2}, {"context_tokens": 17}, {"shards": changed_shards}):
        assert samples(blend(tmp_path, **changes)) == samples(blend(None, **changes))
    assert len(list(tmp_path.iterdir())) == 4


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def other_version(folder: Path) -> None:
    manifest = folder / "manifest.json"
    write_json(manifest, read_json(manifest) | {"version": 0})


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "web.windows.npy"),
        lambda folder: truncate(folder / "source.npy"),
        lambda folder: (folder / "code.documents.npy").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").unlink(),
        other_version,
        shutil.rmtree,
    ],
)
def test_a_damaged_index_is_built_again(tmp_path: Path, built: list[int], damage: Any) -> None:
    expected = samples(blend(tmp_path))
    damage(next(tmp_path.iterdir()))
    assert samples(blend(tmp_path)) == expected
    assert samples(blend(tmp_path)) == expected
    assert built == [200, 200]
    assert [p.name.startswith(".") for p in tmp_path.iterdir()] == [False], "nothing is left beside it"


def test_without_a_place_to_write_it_stays_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert samples(blend(tmp_path / "file")) == samples(blend(None))


def race(folder: Path, start: Any, results: Any) -> None:
    start.wait()
    found = [samples(blend(folder, 40 + 10 * (turn % 3)))[:40] for turn in range(12)]
    results.put(all(each == found[0] for each in found) and found[0])


def test_processes_may_build_at_once(tmp_path: Path) -> None:
    """Also indices of different lengths, which replace one another."""
    context = multiprocessing.get_context("spawn")  # a fork of this process may inherit locked locks
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path / "index", start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    expected = samples(blend(None, 40))
    assert [results.get(timeout=60) for _ in processes] == [expected] * 4
    for process in processes:
        process.join()


def test_a_huge_source_keeps_only_the_documents_that_are_used() -> None:
    windows = index.cut(np.full(100_000, 50, dtype=np.int32), 10, 100, "web", 0)
    assert len(windows.documents) == 21 and windows.documents.dtype == np.int32
