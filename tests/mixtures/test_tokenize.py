"""A study's data from documents to artefacts: idempotent, restartable, and clear about what is wrong."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_shards import contents

from configs.documents import sft_sets_of, sources_of, tokens_needed
from configs.errors import ArtifactError, ConfigError, DataError, ResourceError
from configs.load import load_study
from configs.schema import StudyConfig
from mixtures.blend.blend import Blend
from mixtures.tokenize import main, tokenize_study
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

Writer = Callable[..., Path]
OVERRIDES = {"tokenizer.name": "tiny", "tokenizer.vocab": 400, "tokenizer.sample_megabytes": 0.01}
# Of the training configs: the tests must not depend on how the miniature study is tuned.
TRAINING = {"model.context_tokens": 512}
SOURCES = ["refinedweb", "fineweb_edu", "dclm", "starcoder", "stack_v2", "wikipedia", "arxiv", "stackexchange", "books"]


def study(**overrides: Any) -> StudyConfig:
    return load_study("mini", OVERRIDES | {"overrides": TRAINING, "checkpoint_tokens": {}} | overrides)


def test_a_study_finds_all_it_needs_and_a_rerun_changes_nothing(documents_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines: list[str] = []
    tokenize_study(study(), documents_root, data, lines.append)
    tokenizer = Tokenizer.load(data / "tokenizers" / "tiny")
    assert tokenizer.vocab_size <= 400
    shards = {name: Shards.open(data / "tokens" / "tiny" / name, deep=True) for name in SOURCES}
    for source in shards.values():
        assert source.manifest["tokenizer"] == tokenizer.sha256
        assert source.validation is not None
        assert source.num_documents + source.validation.num_documents == 80
    assert len(SftDataset.open(data / "sft" / "tiny" / "sft", deep=True)) == 30
    assert sum(": tokenizing" in line for line in lines) == 10

    before = contents(data)
    stamps = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    lines.clear()
    tokenize_study(study(), documents_root, data, lines.append)
    assert contents(data) == before
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == stamps
    assert sum("unchanged" in line for line in lines) == 11

    blend = Blend(shards, {"refinedweb": 0.75, "books": 0.25}, 64, seed=0, num_samples=40)
    tokens = blend.tokens()
    assert {name: n / sum(tokens.values()) for name, n in tokens.items()} == {"books": 0.25, "refinedweb": 0.75}


def test_a_changed_document_remakes_what_it_touches_under_the_same_path(
    documents_root: Path, tmp_path: Path, write_rows: Writer, texts: Callable[[int, int], list[str]]
) -> None:
    data = tmp_path / "data"
    settings = study(**{"tokenizer.sample_megabytes": 0.000_001})  # one document of each source
    tokenize_study(settings, documents_root, data)
    before = {name: Shards.open(data / "tokens" / "tiny" / name).fingerprint for name in SOURCES}
    write_rows(documents_root / "corpora" / "books" / "part-00001.parquet", text=texts(40, 999))
    lines: list[str] = []
    tokenize_study(settings, documents_root, data, lines.append)
    after = {name: Shards.open(data / "tokens" / "tiny" / name).fingerprint for name in SOURCES}
    assert {name for name in SOURCES if before[name] != after[name]} == {"books"}
    # Its sample holds another unit of books, so the tokenizer cannot know that its one document is the same.
    assert any("tokenizer tiny: making it" in line for line in lines)
    assert any("books: tokenizing" in line for line in lines)
    assert any("arxiv: unchanged" in line for line in lines)


def test_another_vocabulary_remakes_everything(documents_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tokenize_study(study(), documents_root, data)
    lines: list[str] = []
    tokenize_study(study(**{"tokenizer.vocab": 300}), documents_root, data, lines.append)
    assert not any("unchanged" in line for line in lines)
    assert Tokenizer.load(data / "tokenizers" / "tiny").vocab_size == 300
    assert Shards.open(data / "tokens" / "tiny" / "dclm").manifest["max_id"] < 300


def test_only_sources_of_the_study_are_touched(documents_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(documents_root / "corpora" / "dclm")
    narrow = study(mixtures=["V1P0", "V1P1"], extra_seeds={})
    tokenize_study(narrow, documents_root, tmp_path / "data")
    made = sorted(path.name for path in (tmp_path / "data" / "tokens" / "tiny").iterdir())
    assert made == sorted(sources_of(narrow))
    assert "dclm" not in made and "refinedweb" in made


def test_damaged_artefacts_are_refused_and_left_alone(documents_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tokenize_study(study(), documents_root, data)
    path = data / "tokens" / "tiny" / "arxiv" / "part-00000.bin"
    path.write_bytes(path.read_bytes()[:-10])
    before = contents(data)
    with pytest.raises(ArtifactError, match=r"arxiv/part-00000\.bin: \d+ bytes found"):
        tokenize_study(study(), documents_root, data)
    assert contents(data) == before


@pytest.mark.parametrize("full", ["mixtures.tokens.part_files.fsync", "numpy.save", "configs.artifacts.os.fsync"])
def test_a_full_disk_is_a_resource_error_and_leaves_nothing_half_written(
    documents_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "some/file")

    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(full, no_space)
        with pytest.raises(ResourceError, match="some/file: no space left on device"):
            tokenize_study(study(), documents_root, data)
    assert not [path for path in data.rglob("*") if path.name.endswith(".tmp")]
    for manifest in data.rglob("manifest.json"):
        assert json.loads(manifest.read_text())
    tokenize_study(study(), documents_root, data)
    tokenize_study(study(), documents_root, tmp_path / "whole")
    assert contents(data) == contents(tmp_path / "whole")


def test_a_source_that_vanishes_stops_before_anything_is_written(documents_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(documents_root / "corpora" / "stack_v2")
    with pytest.raises(DataError, match="no folder for source 'stack_v2'"):
        tokenize_study(study(), documents_root, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_unknown_sft_set_is_refused(documents_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown SFT set 'other'\n.*sft"):
        tokenize_study(study(overrides={"data.sft_set": "other"}), documents_root, tmp_path / "data")


def test_the_longest_context_of_a_study_cuts_its_sft_set() -> None:
    assert sft_sets_of(study()) == {"sft": 512}
    assert sft_sets_of(study(overrides={"model.context_tokens": 256})) == {"sft": 256}


def test_local_documents_are_sampled_where_the_study_says_so(
    documents_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = {"books": 500, "arxiv": 10**6}
    everywhere = dict.fromkeys(sources_of(study()), 500) | needed
    monkeypatch.setattr("mixtures.tokens.sampling.tokens_needed", lambda _: everywhere)
    lines: list[str] = []
    small = study(**{"data.kind": "local", "data.sample": True})
    tokenize_study(small, documents_root, tmp_path / "data", lines.append)
    books, arxiv = (Shards.open(tmp_path / "data" / "tokens" / "tiny" / name) for name in needed)
    # The files are too small to be sampled document by document, but one suffices, and ends where it does.
    assert 500 <= books.num_tokens < 600 and books.manifest["sample"]["reached"] and len(books.manifest["units"]) == 1
    assert arxiv.manifest["sample"] == {"tokens": 10**6, "fraction": 1.0, "reached": False, "spread": 4}
    assert arxiv.manifest["kept"] == 80 > books.manifest["kept"]
    assert [line.split(":")[0] for line in lines if "the source ends before the 1,000,000 tokens" in line] == ["arxiv"]


def test_tokens_needed_covers_every_blend_of_the_study() -> None:
    from configs.load import load_mixture, pretrain_config

    settings = study()
    for source in sources_of(settings):
        needed = tokens_needed(settings)[source]
        for mixture in settings.mixtures:
            for scale in settings.scales:
                config = pretrain_config(settings, scale, mixture, 0)
                share = load_mixture(mixture).weights.get(source, 0.0)
                samples = config.pretraining_steps * config.batch.sequences
                used = (np.ceil(samples * share) + 1) * config.model.context_tokens + 1
                assert needed >= used * (share > 0)


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixtures.tokenize", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_answers_without_heavy_imports() -> None:
    result = command_line("--help")
    assert result.returncode == 0 and "examples:" in result.stdout
    heavy = "{'torch', 'numpy', 'pyarrow', 'datasets', 'tokenizers', 'ray'}"
    script = f"import sys, mixtures.tokenize; print({heavy} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"


def test_mistakes_end_with_one_message_and_exit_code_2(tmp_path: Path) -> None:
    place = ["--documents", str(tmp_path / "nowhere"), "--data", str(tmp_path / "data")]
    result = command_line("--study", "mini", *place, "data.kind=local")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'nowhere'}: data folder is missing")
    assert "generates its documents" in command_line("--study", "mini", *place).stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_local_study_without_a_folder_says_which_option_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--study", "real_small"])
    assert stop.value.code == 2
    assert "--documents DIR" in capsys.readouterr().err


@pytest.mark.shared_data
def test_a_real_source_goes_through(shared_data: Path, tmp_path: Path) -> None:
    """Real documents: tiktoken and tokenizers agree on each, and the shards decode to them."""
    import tokenizers
    from token_shards import tokenize_source

    from configs.load import load_sources
    from mixtures.sources.source import Source
    from mixtures.tokens.new_tokenizer import SPECIAL_TOKENS, train_tokenizer

    source = Source("stackexchange", load_sources().sources["stackexchange"], shared_data)
    texts = [document.text for unit in source.units() for document in unit.documents()]
    tokenizer = train_tokenizer(texts[:300], 2000, tmp_path / "tokenizer", {})
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    plain = [text for text in texts if not any(special in text for special in SPECIAL_TOKENS)]
    assert tokenizer.encode_batch(plain) == [encoding.ids for encoding in reference.encode_batch(plain)]

    shards = tokenize_source(source, tokenizer, tmp_path / "shards")
    assert shards.validation is not None
    sides = (shards, shards.validation)
    decoded = [tokenizer.decode(side.document(i)[:-1]) for side in sides for i in range(side.num_documents)]
    assert sorted(decoded) == sorted(texts)
