"""Verification: what is whole passes, and every kind of damage is found and named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from token_shards import contents, make_shards

from configs.artifacts import read_json, sha256_file, write_json
from configs.errors import ArtifactError
from configs.layout import sft_dir, shards_dir, tokenizer_dir
from configs.schema import SftSpec
from mixtures.sources.source import Source
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.sft import prepare_sft
from mixtures.tokens.shards import Shards, read_index
from mixtures.tokens.tokenizer import Tokenizer
from mixtures.tokens.verification import verify, verify_shards
from mixtures.verify import folders_below, main

Texts = Callable[[int, int], list[str]]
Damage = Callable[[Path], None]


@pytest.fixture
def data(texts: Texts, tmp_path: Path) -> Path:
    """A data folder with a tokenizer, the source `web` in three files, and an SFT set."""
    data = tmp_path / "data"
    tokenizer = train_tokenizer(texts(200, 7), 400, tokenizer_dir(data, "tiny"), {})
    make_shards(texts(400, 1), tokenizer, tmp_path / "made" / "web", files=3)
    shards_dir(data, "tiny", "web").parent.mkdir(parents=True)
    (tmp_path / "made" / "web").rename(shards_dir(data, "tiny", "web"))
    chat = tmp_path / "corpora" / "chat"
    chat.mkdir(parents=True)
    messages = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * 4
    pq.write_table(pa.table({"messages": messages}), chat / "part-00000.parquet")
    source = Source("chat", SftSpec(hub="none/none", folder="chat"), tmp_path)
    prepare_sft(source, tokenizer, sft_dir(data, "tiny", "chat"), context_tokens=99, inputs={})
    return data


@pytest.fixture
def web(data: Path) -> Path:
    return shards_dir(data, "tiny", "web")


def rewrite(web: Path, **changes: Any) -> None:
    manifest = read_json(web / "manifest.json")
    write_json(web / "manifest.json", manifest | changes)


def rehash(web: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as a forger would."""
    manifest = read_json(web / "manifest.json")
    manifest["files"][name] = {"bytes": (web / name).stat().st_size, "sha256": sha256_file(web / name)}
    write_json(web / "manifest.json", manifest)


def edit(path: Path, place: int, ids: list[int]) -> None:
    stored = np.fromfile(path, dtype=np.uint16)
    stored[place : place + len(ids)] = ids
    stored.tofile(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_whole_artefacts_pass(data: Path, web: Path, workers: int) -> None:
    before = contents(data)
    rows = list(verify(folders_below(data), workers=workers))
    assert [(row.kind, row.documents) for row in rows] == [("SFT set", 4), ("tokenizer", 0), ("token shards", 400)]
    shards = Shards.open(web)
    assert shards.validation is not None
    assert rows[2].tokens == shards.num_tokens + shards.validation.num_tokens
    assert contents(data) == before


def flipped_byte(web: Path) -> None:
    shards = Shards.open(web)
    place = int(shards.lengths[:20].sum()) + 1  # inside document 20
    stored = np.fromfile(web / "part-00000.bin", dtype=np.uint16)
    other = 300 if stored[place] != 300 else 301
    edit(web / "part-00000.bin", place, [other])


def end_overwritten(web: Path) -> None:
    edit(web / "part-00001.bin", int(read_index(web / "part-00001.idx").lengths[:5].sum()) - 1, [300])


def special_inside(web: Path) -> None:
    edit(web / "part-00001.bin", int(read_index(web / "part-00001.idx").lengths[:5].sum()), [2])


def beyond_vocabulary(web: Path) -> None:
    edit(web / "part-00002.bin", 0, [60_000])
    rehash(web, "part-00002.bin")


def truncated(web: Path) -> None:
    path = web / "part-00001.bin"
    path.write_bytes(path.read_bytes()[:-3])


def missing_index(web: Path) -> None:
    (web / "part-00002.idx").unlink()


def missing_held_out(web: Path) -> None:
    next((web / "validation").glob("*.bin")).unlink()


def wrong_magic(web: Path) -> None:
    path = web / "part-00000.idx"
    path.write_bytes(b"X" + path.read_bytes()[1:])
    rehash(web, path.name)


def wrong_offset(web: Path) -> None:
    path = web / "part-00000.idx"
    n = len(read_index(web / "part-00000.idx").lengths)
    content = bytearray(path.read_bytes())
    content[34 + 4 * n + 8] ^= 2
    path.write_bytes(content)
    rehash(web, path.name)


def index_of_other_lengths(web: Path) -> None:
    path = web / "part-00000.idx"
    content = bytearray(path.read_bytes())
    content[34] ^= 1
    path.write_bytes(content)
    rehash(web, path.name)


def rows_out_of_order(web: Path) -> None:
    path = web / "part-00000.rows.npy"
    rows = np.load(path)
    np.save(path, rows[::-1])
    rehash(web, path.name)


def other_tokenizer(web: Path) -> None:
    rewrite(web, tokenizer="0" * 64)


def wrong_vocabulary(web: Path) -> None:
    rewrite(web, vocab_size=399)


def wrong_count(web: Path) -> None:
    manifest = read_json(web / "manifest.json")
    rewrite(web, eods=manifest["eods"] + 1)


def wrong_highest(web: Path) -> None:
    rewrite(web, max_id=398)


def wrong_kept(web: Path) -> None:
    rewrite(web, kept=1)


def stranger(web: Path) -> None:
    (web / "part-00007.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped_byte, r"part-00000\.bin: sha256 differs from the manifest: document 20 \(row \d+ of its input\)"),
        (end_overwritten, r"part-00001\.bin: document 4: ends with 300, not with the end-of-document token 0"),
        (special_inside, r"part-00001\.bin: document 5: holds the special token 2"),
        (beyond_vocabulary, r"part-00002\.bin: document 0: id 60000 is not below the vocabulary of \d+"),
        (truncated, r"part-00001\.bin: \d+ bytes found, the manifest says \d+"),
        (missing_index, r"part-00002\.idx: file named in the manifest is missing"),
        (missing_held_out, r"validation/part-\d+\.bin: file named in the manifest is missing"),
        (wrong_magic, r"part-00000\.idx: not a Megatron index"),
        (wrong_offset, r"part-00000\.idx: the documents do not lie one after another"),
        (index_of_other_lengths, r"part-00000\.idx: the documents do not lie one after another"),
        (rows_out_of_order, r"part-00000\.rows\.npy: rows do not rise"),
        (other_tokenizer, r"manifest\.json: made with another tokenizer than .*tiny"),
        (wrong_vocabulary, r"manifest\.json: vocab_size is 399, the tokenizer .* has \d+"),
        (wrong_count, r"manifest\.json: eods is \d+, the files hold \d+"),
        (wrong_highest, r"manifest\.json: max_id is 398, the files hold \d+"),
        (wrong_kept, r"manifest\.json: documents kept, of the units and of both sides disagree"),
        (stranger, r"part-00007\.bin: the manifest does not name this file"),
    ],
)
def test_damage_is_found_and_named(web: Path, damage: Damage, message: str) -> None:
    damage(web)
    before = contents(web)
    with pytest.raises(ArtifactError, match=message):
        verify_shards(web, workers=1)
    assert contents(web) == before


def test_another_tokenizer_under_the_same_name_is_found(data: Path, web: Path, texts: Texts) -> None:
    train_tokenizer(texts(200, 8), 400, tokenizer_dir(data, "tiny"), {})
    with pytest.raises(ArtifactError, match="made with another tokenizer"):
        verify_shards(web)


def test_the_first_bad_file_is_named_whichever_worker_is_first(web: Path) -> None:
    for number in (2, 1):
        edit(web / f"part-{number:05d}.bin", 0, [60_000])
    with pytest.raises(ArtifactError, match=r"part-00001\.bin: document 0"):
        verify_shards(web, workers=2)


def test_blocks_meet_inside_documents(web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 7, 64):
        monkeypatch.setattr("mixtures.tokens.part_checks.BLOCK_TOKENS", size)
        verify_shards(web, workers=1)


def command_line(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixtures.verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table_or_one_message(data: Path, web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", str(data)])
    printed = capsys.readouterr().out
    assert re.search(r"token shards +400 ", printed) and printed.endswith("all as their manifests say\n")
    missing_index(web)
    result = command_line(web)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {web / 'part-00002.idx'}: file named in the manifest is missing")


def test_what_a_study_lacks_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--study", "mini", "--data", str(data)])
    assert stop.value.code == 2
    assert "tokenizers/microworld: no complete artefact here" in capsys.readouterr().err


def test_help_answers_without_heavy_imports() -> None:
    heavy = "{'torch', 'numpy', 'pyarrow', 'datasets', 'tokenizers', 'ray'}"
    script = f"import sys, mixtures.verify, configs.progress; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"
    assert "examples:" in command_line("--help").stdout


def test_the_tokenizer_of_the_fixture_has_the_ids_the_damage_uses(data: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_dir(data, "tiny"))
    assert tokenizer.eod == 0 and 301 < tokenizer.vocab_size <= 400 and tokenizer.special.roles["user"] == 2
