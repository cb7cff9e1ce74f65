"""Manifests, token shards, SFT sets and tokenizers that were altered: opened, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import damaged, examples, files_below, odd_values, read_or_refuse, retyped, within_memory
from hypothesis import example, given
from hypothesis import strategies as st
from token_shards import make_shards

from configs.artifacts import read_json, sha256_file, verify_files, write_json
from configs.errors import ArtifactError, DataError
from configs.layout import sft_dir, shards_dir, tokenizer_dir
from configs.schema import SftSpec
from mixtures.sources.source import Source
from mixtures.tokens.new_tokenizer import take_tokenizer, train_tokenizer
from mixtures.tokens.sft import SftDataset, prepare_sft
from mixtures.tokens.shards import INDEX_HEADER, INDEX_MAGIC, Shards, read_index
from mixtures.tokens.tokenizer import SpecialIds, Tokenizer
from mixtures.tokens.verification import verify

WORDS = ["one fish two fish", "red fish blue fish", "a word and another word", "the end"] * 8


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards, an SFT set and their tokenizer."""
    root = tmp_path_factory.mktemp("data")
    tokenizer = train_tokenizer(WORDS, 270, tokenizer_dir(root, "t"), {})
    make_shards([f"{text} {i}" for i, text in enumerate(WORDS)], tokenizer, shards_dir(root, "t", "web"))
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    (root / "talk.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    source = Source("talk", SftSpec(files=str(root / "talk.jsonl")), None)
    prepare_sft(source, tokenizer, sft_dir(root, "t", "talk"), context_tokens=64, inputs={})
    return root


def open_shards(root: Path) -> None:
    shards = Shards.open(shards_dir(root, "t", "web"))
    for side in filter(None, (shards, shards.validation)):
        for i in range(min(side.num_documents, 4)):
            side.document(i).tolist()
            side.origin(i)
    assert shards.fingerprint and shards.bytes_per_token


def open_sft(root: Path) -> None:
    dataset = SftDataset.open(sft_dir(root, "t", "talk"))
    for i in range(min(len(dataset), 4)):
        dataset[i]


def open_tokenizer(root: Path) -> None:
    folder = tokenizer_dir(root, "t")
    tokenizer = Tokenizer.load(folder)
    tokenizer.decode(tokenizer.encode("one fish é\n")[:4])
    SpecialIds.read(folder)


def verify_all(root: Path) -> None:
    list(verify([shards_dir(root, "t", "web"), sft_dir(root, "t", "talk"), tokenizer_dir(root, "t")], workers=1))


OPENERS: dict[str, Callable[[Path], None]] = {"tokens": open_shards, "sft": open_sft, "tokenizers": open_tokenizer}
FILES = [
    *("tokens/t/web/manifest.json", "tokens/t/web/part-00000.idx", "tokens/t/web/part-00000.rows.npy"),
    *("tokens/t/web/validation/part-00000.idx", "tokens/t/web/part-00000.bin"),
    *("sft/t/talk/manifest.json", "sft/t/talk/boundaries.npy", "sft/t/talk/loss_mask.npy"),
    *("tokenizers/t/tokenizer.json", "tokenizers/t/tokenizer_config.json", "tokenizers/t/manifest.json"),
]


def altered(data: Path, folder: Path, name: str, content: bytes, *, restate: bool) -> Path:
    """A copy of `data` in which one file holds `content`; restate: its manifest says so, as whoever altered it may."""
    root = folder / "data"
    shutil.copytree(data, root)
    path = root / name
    path.write_bytes(content)
    home = path.parent.parent if path.parent.name == "validation" else path.parent
    if restate and path.name != "manifest.json":
        manifest = read_json(home / "manifest.json")
        files = manifest["validation"]["files"] if path.parent.name == "validation" else manifest["files"]
        files[path.name] = {"bytes": len(content), "sha256": sha256_file(path)}
        write_json(home / "manifest.json", manifest)
    return root


@pytest.mark.parametrize("name", FILES)
@examples(12)
@given(choices=st.data())
def test_an_altered_file_is_opened_or_refused(
    name: str, choices: st.DataObject, data: Path, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("a")
    content = choices.draw(damaged((data / name).read_bytes()))
    root = altered(data, folder, name, content, restate=choices.draw(st.booleans()))
    before = files_below(folder)
    read_or_refuse(lambda: OPENERS[name.partition("/")[0]](root))
    read_or_refuse(lambda: verify_all(root))
    assert files_below(folder) == before


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
@examples(25)
@given(choices=st.data())
def test_values_of_other_types_are_refused(
    name: str, choices: st.DataObject, data: Path, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("a")
    content = json.dumps(choices.draw(retyped(read_json(data / name)))).encode()
    root = altered(data, folder, name, content, restate=True)
    read_or_refuse(lambda: OPENERS[name.partition("/")[0]](root))
    read_or_refuse(lambda: verify_all(root))


@examples(100)
@given(st.binary(max_size=60) | odd_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 1_000_000)
@example(b"9" * 5000)
@example(b"\xff\xfe")
@example(b"")
def test_any_bytes_are_json_or_refused(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("j") / "manifest.json"
    path.write_bytes(content)
    error = read_or_refuse(lambda: read_json(path))
    assert error is None or str(path) in str(error)


def test_a_huge_json_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ArtifactError, match="1,099,511,627,776 bytes of JSON"):
        read_json(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", "..", "a\0b"])
def test_a_manifest_names_only_its_own_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    entry = {"bytes": 1, "sha256": sha256_file(tmp_path / "secret")}
    with pytest.raises(ArtifactError, match="it names the file"):
        verify_files(folder, {name: entry}, deep=True)


@pytest.mark.parametrize("documents", [2**40, 2**60, 2**64 - 1])
def test_an_index_that_claims_more_than_it_has(documents: int, tmp_path: Path) -> None:
    path = tmp_path / "part-00000.idx"
    path.write_bytes(INDEX_HEADER.pack(INDEX_MAGIC, 1, 8, documents, (documents + 1) % 2**64) + bytes(100))
    with pytest.raises(ArtifactError, match="bytes do not hold the"):
        read_index(path)


def test_arrays_that_claim_more_than_they_have_take_no_memory(data: Path, tmp_path: Path) -> None:
    import numpy as np

    header = (data / "sft/t/talk/boundaries.npy").read_bytes()
    assert b"'shape': (2,), " in header
    claims = header.replace(b"'shape': (2,), ", b"'shape': (%d,)," % 2**40)[: len(header)]
    for name, content in (("sft/t/talk/boundaries.npy", claims), ("tokens/t/web/part-00000.rows.npy", claims)):
        folder = tmp_path / name.replace("/", "-")
        root = altered(data, folder, name, content, restate=True)
        with pytest.raises(ArtifactError):
            verify_all(root)
    # An array of Python objects is a pickle.
    mark = tmp_path / "mark"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    np.save(tmp_path / "objects.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    content = (tmp_path / "objects.npy").read_bytes()
    with pytest.raises(ArtifactError):
        open_sft(altered(data, tmp_path / "o", "sft/t/talk/boundaries.npy", content, restate=True))
    assert not mark.exists()


# ---------------------------------------------------------------------------------------------- tokenizers of others


@examples(60)
@given(choices=st.data())
def test_a_tokenizer_of_others_is_taken_or_refused(choices: st.DataObject, data: Path, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("t")
    path = folder / "tokenizer.json"
    whole = (data / "tokenizers/t/tokenizer.json").read_bytes()
    changed = retyped(json.loads(whole)).map(lambda tree: json.dumps(tree).encode())
    path.write_bytes(choices.draw(st.one_of(damaged(whole), changed)))
    read_or_refuse(lambda: take_tokenizer(path, 300, folder / "taken", {}))


def test_a_tokenizer_cannot_ask_for_memory_or_other_ids(data: Path, tmp_path: Path) -> None:
    tree = read_json(data / "tokenizers/t/tokenizer.json")
    plain = Tokenizer.load(tokenizer_dir(data, "t")).encode("one fish")
    for key, value in {
        "padding": {
            "strategy": {"Fixed": 2**40},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        },
        "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
    }.items():
        content = json.dumps(tree | {key: value}).encode()
        root = altered(data, tmp_path / key, "tokenizers/t/tokenizer.json", content, restate=True)
        assert Tokenizer.load(tokenizer_dir(root, "t")).encode("one fish") == plain
    path = tmp_path / "tokenizer.json"
    tree["model"]["vocab"]["a"] = 2**31
    for content in (json.dumps(tree), "[" * 100_000, '{"model": ' + "[" * 100_000, "9" * 5000, '{"version": "1.0"}'):
        path.write_text(content)
        with pytest.raises(DataError, match="tokenizer"):
            take_tokenizer(path, 300, tmp_path / "taken", {})
    assert not (tmp_path / "taken").exists()
    code = """
    from pathlib import Path
    from mixtures.tokens.new_tokenizer import take_tokenizer
    import tokenizers
    path = Path(sys.argv[1])
    start()
    take_tokenizer(path, 300, path.parent / "taken", {})
    """
    with path.open("wb") as stream:
        stream.truncate(2**40)
    assert "1,099,511,627,776 bytes" in within_memory(code, path, limit_mib=16)
