"""Token shards: what Megatron reads back, what is held out, how parts come together, and what a kill leaves."""

from __future__ import annotations

import errno
import json
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_shards import contents, make_shards, tokenize_source, write_source

from configs.artifacts import lock_folder, sha256_file
from configs.errors import ArtifactError, DataError, ResourceError
from configs.schema import SourceSpec
from mixtures.sources.source import Source
from mixtures.tokens.assembly import Assembly, assemble
from mixtures.tokens.parts import held_out_hash, write_part
from mixtures.tokens.sampling import HASHES, Sample, sampling_hash
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

Texts = Callable[[int, int], list[str]]


@pytest.fixture
def shards(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> Shards:
    """500 documents of three files."""
    return make_shards(texts(500, 1), tokenizer, tmp_path / "web", files=3)


def decoded(shards: Shards, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(shards.document(i)[:-1]) for i in range(shards.num_documents)]


def held_out(shards: Shards) -> Shards:
    assert shards.validation is not None
    return shards.validation


# ---------------------------------------------------------------------------------------------- content


def test_megatron_reads_the_same_documents(shards: Shards) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    for side in (shards, held_out(shards)):
        parts = [IndexedDataset(str(path.with_suffix(""))) for path in sorted(side.folder.glob("*.bin"))]
        read = [part[i] for part in parts for i in range(len(part))]
        assert len(read) == side.num_documents
        for i, document in enumerate(read):
            np.testing.assert_array_equal(document, side.document(i))
            assert document.dtype == np.uint16
    assert len(list(shards.folder.glob("*.bin"))) == 3


@settings(deadline=None, max_examples=12)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), min_size=9, unique=True))
def test_megatron_reads_ids_that_decode_to_any_unicode(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    usable = [text for text in texts if not text.isspace()]
    folder = tmp_path_factory.mktemp("unicode") / "source"
    if len(usable) < 2:
        return
    shards = make_shards(texts, tokenizer, folder, files=2)
    found = []
    for path in folder.rglob("*.bin"):
        megatron = IndexedDataset(str(path.with_suffix("")))
        found += [tokenizer.decode(megatron[i][:-1]) for i in range(len(megatron))]
    assert sorted(found) == sorted(usable)
    assert shards.manifest["dropped"] == ({"blank": len(texts) - len(usable)} if len(usable) < len(texts) else {})


def test_every_document_is_on_one_side_and_ends_with_one_end_of_document(
    tokenizer: Tokenizer, texts: Texts, shards: Shards
) -> None:
    for side in (shards, held_out(shards)):
        for i in range(side.num_documents):
            document = side.document(i)
            assert document[-1] == tokenizer.eod
            assert np.count_nonzero(document == tokenizer.eod) == 1
    train, validation = decoded(shards, tokenizer), decoded(held_out(shards), tokenizer)
    assert sorted(train + validation) == sorted(texts(500, 1))
    # Order is kept within a side.
    assert train == [text for text in texts(500, 1) if text in set(train)]


def test_every_document_tells_its_file_and_row(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    documents: list[str | None] = [None if n % 7 == 3 else text for n, text in enumerate(texts(300, 2))]
    shards = make_shards(documents, tokenizer, tmp_path / "web", files=3)
    for side in (shards, held_out(shards)):
        for i, text in enumerate(decoded(side, tokenizer)):
            unit, row = side.origin(i)
            assert documents[int(unit[5:10]) * 100 + row] == text


def test_the_manifest_counts_what_is_there(tokenizer: Tokenizer, shards: Shards, texts: Texts) -> None:
    manifest = json.loads((shards.folder / "manifest.json").read_text())
    ids = np.concatenate([shards.document(i) for i in range(shards.num_documents)])
    assert (manifest["tokenizer"], manifest["vocab_size"]) == (tokenizer.sha256, tokenizer.vocab_size)
    assert manifest["tokens"] == len(ids) == shards.num_tokens
    assert manifest["documents"] == manifest["eods"] == shards.num_documents
    assert (manifest["min_id"], manifest["max_id"]) == (ids.min(), ids.max())
    whole = manifest["utf8_bytes"] + manifest["validation"]["utf8_bytes"]
    assert whole == sum(len(text.encode()) for text in texts(500, 1))
    assert manifest["kept"] == 500 and manifest["dropped"] == {} and manifest["sample"] is None
    assert [unit["name"] for unit in manifest["units"]] == [f"part-{n:05d}.parquet" for n in range(3)]
    assert sum(unit["tokens"] for unit in manifest["units"]) == shards.num_tokens
    for folder, files in (
        (shards.folder, manifest["files"]),
        (held_out(shards).folder, manifest["validation"]["files"]),
    ):
        assert {path.name for path in folder.glob("part-*")} == set(files)
        for name, entry in files.items():
            assert entry == {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}


def test_one_document_in_a_hundred_is_held_out_whatever_its_source(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [f"{n}" for n in range(20_000)]
    first = make_shards(texts, tokenizer, tmp_path / "a")
    second = make_shards(texts[9_999::-1], tokenizer, tmp_path / "b", files=2)
    # Binomial(20000, 0.01) has standard deviation 14.1.
    assert abs(held_out(first).num_documents - 200) < 4.5 * 14.1
    assert set(decoded(held_out(second), tokenizer)) < set(decoded(held_out(first), tokenizer))


@settings(deadline=None, max_examples=20)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=6))
def test_a_tiny_source_has_both_sides_or_is_refused(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tiny") / "source"
    usable = [text for text in texts if not text.isspace()]
    if len(set(usable)) < 2:
        with pytest.raises(DataError, match=r"source source: (one document, or copies of one|no usable document)"):
            make_shards(texts, tokenizer, folder)
        assert [path.name for path in folder.parent.iterdir()] == ["source-documents"]
        return
    shards = make_shards(texts, tokenizer, folder)
    train, validation = decoded(shards, tokenizer), decoded(held_out(shards), tokenizer)
    assert train and validation and not set(train) & set(validation)
    assert sorted(train + validation) == sorted(usable)
    if all(held_out_hash(text.encode()) >= HASHES // 100 for text in usable):
        assert set(validation) == {min(usable, key=lambda text: held_out_hash(text.encode()))}


def test_a_large_vocabulary_takes_four_bytes(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    class Wide:
        vocab_size, eod, folder, identity = 100_864, 0, tmp_path, {"tokenizer": "wide"}
        sha256 = identity["tokenizer"]

        def encode_array(self, text: str) -> Any:
            return np.array([100_863, 65_536, int(text)], dtype=np.uint32)

    wide: Any = Wide()
    monkeypatch.setattr("mixtures.tokens.parts._tokenizer", lambda *_: wide)
    shards = make_shards([str(n) for n in range(1, 300)], wide, tmp_path / "w")
    assert shards.document(0).dtype == np.int32
    megatron = IndexedDataset(str(tmp_path / "w" / "part-00000"))  # its views die with it
    assert megatron[0].tolist() == shards.document(0).tolist()
    assert shards.document(0)[:2].tolist() == [100_863, 65_536]
    assert shards.manifest["max_id"] == 100_863


def test_dropped_rows_are_counted_and_placed(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    source = write_source(tmp_path, "s", [*texts(100, 4), None, " \n", *[None] * 7])
    bad = pa.array([b"fine", b"\xff\xfe not UTF-8"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "corpora" / "s" / "part-00001.parquet")
    shards = tokenize_source(source, tokenizer, tmp_path / "out" / "s")
    assert shards.manifest["kept"] == 101
    assert shards.manifest["dropped"] == {"blank": 1, "not UTF-8": 1, "null": 8}
    assert shards.manifest["dropped_first"]["null"] == [
        f"part-00000.parquet row {row}" for row in (100, 102, 103, 104, 105)
    ]
    assert shards.manifest["dropped_first"]["not UTF-8"] == ["part-00001.parquet row 1 (byte 0)"]


def test_a_unit_without_documents_has_no_files(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    source = write_source(tmp_path, "s", texts(200, 5), files=2)
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), source.folder / "part-00000a.parquet")
    shards = tokenize_source(source, tokenizer, tmp_path / "out" / "s")
    assert sorted(path.name for path in shards.folder.glob("*.bin")) == ["part-00000.bin", "part-00002.bin"]
    assert shards.origin(shards.num_documents - 1)[0] == "part-00001.parquet"
    assert shards.manifest["units"][1]["dropped"] == {"null": 2}


def test_a_source_without_held_out_tokens_in_a_part_still_opens(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = make_shards(["a", "b", "c", "d"], tokenizer, tmp_path / "s", files=4)
    assert held_out(shards).num_documents == 1 and held_out(shards).origin(0)[1] == 0
    assert Shards.open(shards.folder, deep=True).num_documents == 3


# ---------------------------------------------------------------------------------------------- samples


def test_a_sample_is_the_shortest_prefix_of_units_that_suffices(
    tokenizer: Tokenizer, texts: Texts, tmp_path: Path
) -> None:
    documents = texts(1000, 6)
    source = write_source(tmp_path, "s", documents, files=20)
    whole = tokenize_source(source, tokenizer, tmp_path / "whole")
    sample = Sample(whole.num_tokens // 10, 0.5)
    taken = tokenize_source(source, tokenizer, tmp_path / "sample", sample=sample)
    manifest = taken.manifest
    assert manifest["sample"] == {"tokens": sample.tokens, "fraction": 0.5, "reached": True, "spread": 4}
    assert taken.num_tokens >= sample.tokens > taken.num_tokens - manifest["units"][-1]["tokens"]
    names = [unit["name"] for unit in manifest["units"]]
    assert names == [unit.name for unit in Assembly(source, tokenizer, tmp_path / "x", sample).units[: len(names)]]
    assert names != sorted(names) and 3 <= len(names) <= 6
    # Of those files exactly the documents whose hash is in the lower half; the rest is counted.
    of_files = [text for name in names for text in documents[int(name[5:10]) * 50 :][:50]]
    chosen = [text for text in of_files if sampling_hash(text.encode()) < HASHES // 2]
    assert sorted(decoded(taken, tokenizer) + decoded(held_out(taken), tokenizer)) == sorted(chosen)
    assert manifest["not_sampled"] == len(of_files) - len(chosen)


def test_a_sample_is_the_same_for_any_number_of_workers(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    source = write_source(tmp_path, "s", texts(600, 7), files=12)
    made = [tokenize_source(source, tokenizer, tmp_path / f"{n}", sample=Sample(1500, 0.6), workers=n) for n in (1, 2)]
    assert contents(made[0].folder) == contents(made[1].folder)
    assert len(made[0].manifest["units"]) < 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "corpora"]


def test_a_source_that_ends_before_its_sample_says_so(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    shards = make_shards(texts(300, 8), tokenizer, tmp_path / "s", sample=Sample.of(10**9, 10**6))
    assert shards.manifest["sample"] == {"tokens": 10**9, "fraction": 1.0, "reached": False, "spread": 4}
    assert shards.manifest["kept"] == 300


def test_one_unit_that_suffices_ends_there(tokenizer: Tokenizer, texts: Texts, tmp_path: Path) -> None:
    shards = make_shards(texts(600, 9), tokenizer, tmp_path / "s", sample=Sample(1000, 1.0))
    assert 1000 <= shards.num_tokens < 1000 + shards.lengths.max()


def test_the_sampled_fraction_reads_about_a_quarter_of_the_corpus() -> None:
    assert Sample.of(10, 1000).fraction == 0.04
    assert Sample.of(500, 1000).fraction == Sample.of(500, None).fraction == 1.0


# ---------------------------------------------------------------------------------------------- interruptions


def test_any_number_of_workers_writes_the_same_bytes(
    tokenizer: Tokenizer, texts: Texts, shards: Shards, tmp_path: Path
) -> None:
    several = make_shards(texts(500, 1), tokenizer, tmp_path / "several" / "web", files=3, workers=3)
    assert contents(several.folder) == contents(shards.folder)


def interrupted(shards: Shards, tokenizer: Tokenizer, tmp_path: Path) -> tuple[Assembly, Path]:
    """An assembly of the same documents elsewhere, of which two parts of three are finished."""
    source = write_source(tmp_path / "again", "web", [], files=1)
    for path in (shards.folder.with_name("web-documents") / "corpora" / "web").iterdir():
        (source.folder / path.name).write_bytes(path.read_bytes())
    assembly = Assembly(source, tokenizer, tmp_path / "again" / "out" / "web")
    jobs = assembly.jobs()
    for _ in range(2):
        write_part(next(jobs))
    assembly.release()
    return Assembly(source, tokenizer, assembly.folder), assembly.work


def test_finished_parts_are_kept_and_the_rest_is_done(tokenizer: Tokenizer, shards: Shards, tmp_path: Path) -> None:
    assembly, work = interrupted(shards, tokenizer, tmp_path)
    with pytest.raises(ArtifactError, match="no complete token shards here"):
        Shards.open(assembly.folder)
    stamps = {path.name: path.stat().st_mtime_ns for path in work.glob("part-*.bin")}
    assert len(stamps) == 2
    for leftover in (work / ".part-00002.bin.0123abcd.tmp", work / "validation" / ".part-00002.idx.0123abcd.tmp"):
        leftover.write_bytes(b"half")
    (work / "part-00002.bin").write_bytes(b"named, but its record was never written")
    (work / "part-00009.bin").write_bytes(b"of nobody")
    for name in (".web.0123abcd.tmp", ".web.0123abcd.old.tmp", f".web.{'0' * 16}.partial"):
        (work.parent / name / "deep").mkdir(parents=True)
    assemble([assembly], workers=1)
    assert contents(assembly.folder) == contents(shards.folder)
    assert {name: (assembly.folder / name).stat().st_mtime_ns for name in stamps} == stamps
    assert [path.name for path in work.parent.iterdir()] == ["web"]


def test_a_finished_part_of_a_changed_file_is_done_again(
    tokenizer: Tokenizer, texts: Texts, shards: Shards, tmp_path: Path
) -> None:
    assembly, _ = interrupted(shards, tokenizer, tmp_path)
    changed = pa.table({"text": pa.array(texts(50, 77), pa.string())})
    pq.write_table(changed, assembly.source.folder / "part-00000.parquet")
    assemble([assembly], workers=1)
    assert assembly.kept == {1}
    fresh = tokenize_source(assembly.source, tokenizer, tmp_path / "fresh")
    assert contents(assembly.folder) == contents(fresh.folder)


def test_a_finished_part_with_a_truncated_file_is_done_again(
    tokenizer: Tokenizer, shards: Shards, tmp_path: Path
) -> None:
    assembly, work = interrupted(shards, tokenizer, tmp_path)
    (work / "part-00001.bin").write_bytes(b"")
    assemble([assembly], workers=1)
    assert assembly.kept == {0} and contents(assembly.folder) == contents(shards.folder)


def test_a_run_killed_after_its_last_rename_leaves_records_that_the_next_removes(
    tokenizer: Tokenizer, shards: Shards, tmp_path: Path
) -> None:
    (shards.folder / "part-00000.json").write_text("{}")
    source = Source("web", SourceSpec(kind="web", display="web", folder="web"), tmp_path / "web-documents")
    again = tokenize_source(source, tokenizer, shards.folder)
    assert again.fingerprint == shards.fingerprint
    assert sorted(path.name for path in shards.folder.glob("*.json")) == ["manifest.json"]


def test_two_processes_do_not_work_on_one_source(tokenizer: Tokenizer, shards: Shards, tmp_path: Path) -> None:
    assembly, work = interrupted(shards, tokenizer, tmp_path)
    ready, end = multiprocessing.get_context("spawn").Event(), multiprocessing.get_context("spawn").Event()
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(work, ready, end))
    other.start()
    try:
        assert ready.wait(60)
        before = contents(work)
        with pytest.raises(ResourceError, match="another process is tokenizing web"):
            assemble([assembly], workers=1)
        # Another study's sample of the same source leaves that folder alone, too.
        tokenize_source(assembly.source, tokenizer, assembly.folder, sample=Sample(500, 0.5))
        assert contents(work) == before
    finally:
        end.set()
        other.join()
    assemble([Assembly(assembly.source, tokenizer, assembly.folder)], workers=1)
    assert contents(assembly.folder) == contents(shards.folder)


def hold(folder: Path, ready: Any, end: Any) -> None:
    lock_folder(folder)
    ready.set()
    end.wait(60)


def test_a_full_disk_leaves_nothing_that_looks_finished(
    tokenizer: Tokenizer, shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly, work = interrupted(shards, tokenizer, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mixtures.tokens.part_files.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            assemble([assembly], workers=1)
    assert not assembly.folder.exists() and not list(work.rglob("*.tmp"))
    assemble([Assembly(assembly.source, tokenizer, assembly.folder)], workers=1)
    assert contents(assembly.folder) == contents(shards.folder)


# ---------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("name", ["part-00000.bin", "part-00001.idx", "validation/part-00000.bin"])
def test_a_truncated_or_missing_file_is_refused_and_named(shards: Shards, name: str) -> None:
    path = shards.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    problem = f"{path.name}: {len(whole) - 2} bytes found, the manifest says {len(whole)}"
    with pytest.raises(ArtifactError, match=re.escape(problem)):
        Shards.open(shards.folder)
    assert path.read_bytes() == whole[:-2]
    path.unlink()
    with pytest.raises(ArtifactError, match=re.escape(f"{path.name}: file named in the manifest is missing")):
        Shards.open(shards.folder)


def test_a_flipped_bit_is_found_by_a_deep_check(shards: Shards) -> None:
    path = shards.folder / "part-00001.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    Shards.open(shards.folder)
    with pytest.raises(ArtifactError, match=r"part-00001\.bin: sha256 differs"):
        Shards.open(shards.folder, deep=True)


def test_a_folder_without_manifest_is_refused(shards: Shards) -> None:
    (shards.folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no complete token shards here"):
        Shards.open(shards.folder)


def test_an_index_that_contradicts_its_tokens_is_refused_without_a_manifest_check(shards: Shards) -> None:
    path = shards.folder / "part-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match=r"part-00000\.bin: \d+ bytes, its index says"):
        Shards.open(shards.folder, verify=False)


def test_the_fingerprint_follows_content_not_place(
    tokenizer: Tokenizer, texts: Texts, shards: Shards, tmp_path: Path
) -> None:
    same = make_shards(texts(500, 1), tokenizer, tmp_path / "same", files=3)
    other = make_shards(texts(500, 2), tokenizer, tmp_path / "other", files=3)
    assert same.fingerprint == shards.fingerprint != other.fingerprint
