"""Tokenizers taken from elsewhere: which engine may encode, what is appended, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from configs.errors import ConfigError, DataError
from configs.schema import SourceSpec, StudyTokenizer
from mixtures.sources.formats import ROLES
from mixtures.sources.source import Source
from mixtures.tokens.bpe import byte_of_letter
from mixtures.tokens.new_tokenizer import make_tokenizer, sample_texts, take_tokenizer, tokenizer_inputs
from mixtures.tokens.tokenizer import Tokenizer

Texts = Callable[[int, int], list[str]]


def byte_level(texts: list[str], specials: list[str]) -> tokenizers.Tokenizer:
    """As GPT-2's: its pattern, and specials wherever the trainer puts them."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    return bpe


def unigram(texts: list[str], specials: list[str]) -> tokenizers.Tokenizer:
    """As sentencepiece's."""
    model = tokenizers.Tokenizer(models.Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", *specials], unk_token="<unk>", show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    return model


def saved(model: tokenizers.Tokenizer, path: Path) -> Path:
    model.save(str(path))
    return path


@pytest.fixture(scope="module")
def gpt2(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(byte_level(texts(300, 3), ["<|endoftext|>"]), tmp_path_factory.mktemp("gpt2") / "tokenizer.json")


@pytest.fixture(scope="module")
def taken(gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return take_tokenizer(gpt2, 600, tmp_path_factory.mktemp("taken") / "t", {})


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text(alphabet="the stoneriver \n\t'sdm19éß水🙂", max_size=200))
def test_a_byte_level_tokenizer_is_encoded_by_tiktoken_with_its_ids(gpt2: Path, taken: Tokenizer, text: str) -> None:
    reference = tokenizers.Tokenizer.from_file(str(gpt2))
    assert taken.engine == "tiktoken"
    if "<|" not in text:
        assert taken.encode(text) == reference.encode(text).ids == taken.encode_array(text).tolist()
        assert taken.decode(taken.encode(text)) == text


def test_ids_are_kept_and_missing_specials_appended(gpt2: Path, taken: Tokenizer) -> None:
    before = tokenizers.Tokenizer.from_file(str(gpt2)).get_vocab()
    after = tokenizers.Tokenizer.from_file(str(taken.folder / "tokenizer.json")).get_vocab()
    assert before.items() <= after.items()
    assert taken.eod == before["<|endoftext|>"]
    assert sorted([taken.special.pad, *taken.special.roles.values()]) == list(range(500, 504))
    assert set(taken.special.roles) == set(ROLES) and taken.vocab_size == 504
    manifest = json.loads((taken.folder / "manifest.json").read_text())
    assert (manifest["entries"], manifest["vocab"]) == (504, 600)  # 96 ids of padding


def test_a_run_too_long_for_tiktoken_is_encoded_all_the_same(taken: Tokenizer) -> None:
    text = "a" + " " * 1_500_000 + "b"
    assert taken.decode(taken.encode(text)) == text
    assert taken.encode_array(text).tolist() == taken.encode(text)


def test_what_transformers_loads_is_the_same(taken: Tokenizer) -> None:
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(taken.folder)
    messages = [{"role": "user", "content": "Name the river."}, {"role": "assistant", "content": "море"}]
    assert loaded.apply_chat_template(messages)["input_ids"] == taken.chat(messages)[0]


def test_other_models_are_encoded_by_tokenizers(texts: Texts, tmp_path: Path) -> None:
    path = saved(unigram(texts(300, 3), ["</s>"]), tmp_path / "tokenizer.json")
    tokenizer = take_tokenizer(path, 400, tmp_path / "t", {})
    reference = tokenizers.Tokenizer.from_file(str(path))
    assert tokenizer.engine == "tokenizers"
    for text in ["the stone river", "don't 1984", "水 🙂"]:
        assert tokenizer.encode(text) == reference.encode(text).ids == tokenizer.encode_array(text).tolist()
    assert tokenizer.eod == reference.token_to_id("</s>")
    assert tokenizer.eod not in tokenizer.encode("a </s> b"), "the spelling of a special token is ordinary text"


def test_a_vocabulary_that_tiktoken_would_merge_otherwise_is_left_to_tokenizers(tmp_path: Path) -> None:
    """`abc` is an entry, but its bytes merge to a + bc; tiktoken would take the entry."""
    letters = sorted(byte_of_letter())
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    vocab = {entry: i for i, entry in enumerate([*letters, *("".join(pair) for pair in merges)])}
    bpe = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.add_special_tokens(["<|endoftext|>"])
    tokenizer = take_tokenizer(saved(bpe, tmp_path / "tokenizer.json"), 300, tmp_path / "t", {})
    assert tokenizer.engine == "tokenizers"
    assert tokenizer.encode("abc") == [vocab["a"], vocab["bc"]]


@pytest.mark.parametrize("change", ["merges out of order", "ignore_merges", "normalizer", "prefix space"])
def test_what_the_proof_does_not_cover_is_left_to_tokenizers(gpt2: Path, tmp_path: Path, change: str) -> None:
    definition = json.loads(gpt2.read_text())
    if change == "merges out of order":
        vocab = definition["model"]["vocab"]
        first, second = ("".join(definition["model"]["merges"][i]) for i in (0, 1))
        vocab[first], vocab[second] = vocab[second], vocab[first]
    elif change == "ignore_merges":
        definition["model"]["ignore_merges"] = True
    elif change == "normalizer":
        definition["normalizer"] = {"type": "NFC"}
    else:
        definition["pre_tokenizer"]["add_prefix_space"] = True
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(definition))
    tokenizer = take_tokenizer(path, 600, tmp_path / "t", {})
    assert tokenizer.engine == "tokenizers"
    text = "the stone keeps a lantern e\u0301"
    assert tokenizer.encode(text) == tokenizers.Tokenizer.from_file(str(path)).encode(text).ids


def test_a_beginning_of_sequence_is_not_added(texts: Texts, tmp_path: Path) -> None:
    model = byte_level(texts(300, 3), ["<s>", "</s>"])
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = take_tokenizer(saved(model, tmp_path / "tokenizer.json"), 600, tmp_path / "t", {})
    assert tokenizer.encode("the")[0] != 0
    exported = tokenizers.Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    assert exported.encode("the").ids == tokenizer.encode("the")


def test_bad_files_are_refused(gpt2: Path, texts: Texts, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab: 503 is below the 504 entries"):
        take_tokenizer(gpt2, 503, tmp_path / "t", {})
    with pytest.raises(ConfigError, match=r"end_of_text: '<done>' is no token.*\n.*<\|endoftext\|>"):
        take_tokenizer(gpt2, 600, tmp_path / "t", {}, "<done>")
    nameless = saved(byte_level(texts(50, 1), ["<?>"]), tmp_path / "nameless.json")
    with pytest.raises(ConfigError, match=r"'</s>'.*is no token"):
        take_tokenizer(nameless, 600, tmp_path / "t", {})
    assert take_tokenizer(nameless, 600, tmp_path / "t", {}, "<?>").eod == 0
    broken = tmp_path / "broken.json"
    broken.write_bytes(gpt2.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"broken\.json: not valid JSON"):
        take_tokenizer(broken, 600, tmp_path / "u", {})
    assert not (tmp_path / "u").exists()
    with pytest.raises(DataError, match="no such file"):
        tokenizer_inputs(StudyTokenizer(file=str(tmp_path / "absent.json")), {})


def test_a_sample_is_spread_over_files_and_bounded(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    spec = SourceSpec(kind="web", display="Web", hub="org/web", folder="web")
    for number in range(4):
        rows = [f"{number} " + "x" * 98 for _ in range(1000)]
        write_rows(tmp_path / "corpora" / "web" / f"part-{number:05d}.parquet", text=rows)
    source = Source("web", spec, tmp_path)
    sample = list(sample_texts(source, 0.02))
    assert len(sample) == 200 and {text[0] for text in sample} == set("0123")
    assert list(sample_texts(source, 0.02)) == sample
    everything = list(sample_texts(source, 50))
    assert len(everything) == 4000

    inputs = tokenizer_inputs(StudyTokenizer(vocab=300, sample_megabytes=0.02), {"web": {"files": 4}})
    first = make_tokenizer(StudyTokenizer(vocab=300, sample_megabytes=0.02), [source], inputs, tmp_path / "a")
    again = make_tokenizer(StudyTokenizer(vocab=300, sample_megabytes=0.02), [source], inputs, tmp_path / "b")
    assert first.sha256 == again.sha256
    assert inputs != tokenizer_inputs(StudyTokenizer(vocab=300, sample_megabytes=0.01), {"web": {"files": 4}})
