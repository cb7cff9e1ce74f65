"""Added tokens that are not special: one result whichever engine encodes, and nothing kept from when there were two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from token_shards import tokenize_source, write_source
from tokenizers import AddedToken

from configs.errors import ArtifactError
from configs.schema import SftSpec
from mixtures.sources.source import Source
from mixtures.tokens.new_tokenizer import take_tokenizer
from mixtures.tokens.sft import SftDataset, prepare_sft
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer, check_identity
from mixtures.tokens.verification import verify_shards

Texts = Callable[[int, int], list[str]]
ADDED = ["<think>", "</think>", "|||EMAIL|||", "|||PHONE|||", "<tool call>", "«note»", "水水"]
PIECES = [
    *ADDED,
    "<|endoftext|>",
    "<|user|>",
    "<|pad|>",
    "<",
    "think",
    ">",
    "|||",
    "|",
    "EMAIL",
    " ",
    "\n",
    "  ",
    "'s",
    "1",
]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)
TOKEN = st.text("<>ab| é", min_size=1, max_size=4)


def taken(tokenizer: Tokenizer, folder: Path, added: list[AddedToken]) -> Tokenizer:
    """The tokenizer of these tests with more tokens, as somebody might publish it."""
    given = tokenizers.Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    for token in added:
        (given.add_special_tokens if token.special else given.add_tokens)([token])
    folder.mkdir(parents=True)
    given.save(str(folder / "given.json"))
    return take_tokenizer(folder / "given.json", 1000, folder / "taken", {})


@pytest.fixture(scope="module")
def thinking(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return taken(tokenizer, tmp_path_factory.mktemp("thinking") / "t", [AddedToken(t, normalized=False) for t in ADDED])


def reference_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Those of `tokenizers`, for which special tokens are text."""
    reference = tokenizers.Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    reference.encode_special_tokens = True
    ids: list[int] = reference.encode(text, add_special_tokens=False).ids
    return ids


def check(tokenizer: Tokenizer, text: str) -> None:
    before = Tokenizer(tokenizer.folder)  # tiktoken is not loaded
    first = before.encode_batch([text])[0]
    assert "_tiktoken" not in vars(before)
    assert first == reference_ids(tokenizer, text)
    assert first == tokenizer.encode(text) == tokenizer.encode_array(text).tolist()
    assert first == tokenizer.encode_batch([text])[0] == tokenizer._encode_slowly(text)
    assert before.decode(first) == tokenizer.decode(first)


def test_an_added_token_is_one_token_from_the_first_call_to_the_last(thinking: Tokenizer) -> None:
    assert thinking.engine == "tiktoken"
    think = thinking.encode("<think>")
    assert len(think) == 1 and thinking.recognised == set(ADDED)
    assert thinking.encode_batch(["a <think>b"]) == [[*thinking.encode("a "), *think, *thinking.encode("b")]]
    for text in ("", *ADDED, "".join(ADDED), "<<think>>", "<|<think>endoftext|>", "<|endoftext|><think>", "x" * 9):
        check(thinking, text)
        if "«" not in text:  # whose decoder takes it for a byte
            assert thinking.decode(thinking.encode(text)) == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT)
def test_any_text_with_added_tokens_has_the_ids_of_tokenizers(thinking: Tokenizer, text: str) -> None:
    check(thinking, text)


@settings(deadline=None, max_examples=25)
@given(data=st.data(), flags=st.lists(st.sampled_from(["special", "lstrip", "rstrip", "single_word", "normalized"])))
def test_any_added_tokens_give_the_ids_of_tokenizers(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, flags: list[str]
) -> None:
    contents = data.draw(st.lists(TOKEN, min_size=1, max_size=4, unique=True))
    added = [
        AddedToken(content, **({"normalized": False} | dict.fromkeys(flags if number % 2 else [], True)))
        for number, content in enumerate(contents)
    ]
    tried = taken(tokenizer, tmp_path_factory.mktemp("tried") / "t", added)
    pieces = st.sampled_from([*contents, *"<>ab| é", "\n", "<|user|>"])
    for _ in range(8):
        check(tried, data.draw(st.lists(pieces, max_size=10).map("".join)))


@pytest.mark.parametrize(
    "added",
    [
        [AddedToken("<think>", lstrip=True, normalized=False)],
        [AddedToken("<think>", rstrip=True, normalized=False)],
        [AddedToken("<think>", single_word=True, normalized=False)],
        [AddedToken("<a>", normalized=False), AddedToken("<b>", normalized=True)],
        [AddedToken("<th", normalized=False), AddedToken("<think>", normalized=False)],
        [AddedToken("|><think>", normalized=False)],
        [AddedToken("river", normalized=False)],
    ],
    ids=["lstrip", "rstrip", "single word", "normalized", "one begins another", "in a special token", "an entry"],
)
def test_tokens_that_the_engines_would_find_in_other_places_are_left_to_tokenizers(
    tokenizer: Tokenizer, tmp_path: Path, added: list[AddedToken]
) -> None:
    entries = json.loads((tokenizer.folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert "river" in entries
    tried = taken(tokenizer, tmp_path / "t", added)
    assert tried.engine == "tokenizers"
    for text in (
        "a <think> b",
        "a<think>b",
        "<a><b>",
        "<|user|><think>",
        "<|endoftext|><think>",
        "the river keeps rivers <th",
    ):
        check(tried, text)


def test_a_token_that_only_we_place_is_made_special(tokenizer: Tokenizer, tmp_path: Path) -> None:
    definition = json.loads((tokenizer.folder / "tokenizer.json").read_text())
    for token in definition["added_tokens"]:
        token["special"] = False
    (tmp_path / "given.json").write_text(json.dumps(definition))
    tried = take_tokenizer(tmp_path / "given.json", 1000, tmp_path / "t", {})
    assert tried.engine == "tiktoken" and not tried.recognised
    check(tried, "a <|user|> <|endoftext|><|pad|>b")
    # In a folder from before, the ids are the same on either way, too.
    (tmp_path / "t" / "tokenizer.json").write_text(json.dumps(definition))
    old = Tokenizer(tmp_path / "t")
    fresh = Tokenizer(tmp_path / "t")
    text = "a <|user|> <|endoftext|><|pad|>b"
    assert fresh.encode_batch([text])[0] == old.encode(text) == old.encode_array(text).tolist()
    assert old._special_ids.isdisjoint(old.encode(text))


def test_a_conversation_with_added_tokens_is_that_of_transformers(thinking: Tokenizer) -> None:
    from transformers import AutoTokenizer

    loaded: Any = AutoTokenizer.from_pretrained(thinking.folder)
    messages = [
        {"role": "user", "content": "<think>Name the river.</think>"},
        {"role": "assistant", "content": "<think>\nthe stone\n</think>\n\nмope |||EMAIL|||"},
    ]
    assert loaded.apply_chat_template(messages)["input_ids"] == thinking.chat(messages)[0]
    for text in ("a <think> b", "".join(ADDED)):
        assert loaded(text)["input_ids"] == thinking.encode(text)


def test_ids_from_when_added_tokens_were_spelt_out_are_made_again_and_refused(
    thinking: Tokenizer, tokenizer: Tokenizer, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "tokenizers" / "t"
    shutil.copytree(thinking.folder, home)
    folder = tmp_path / "tokens" / "t" / "web"
    source = write_source(tmp_path / "documents", "web", [f"{text}<think>" for text in texts(30, 1)])
    with monkeypatch.context() as old:
        old.setattr(Tokenizer, "identity", property(lambda self: {"tokenizer": self.sha256}))
        stale = tokenize_source(source, thinking, folder)
    with pytest.raises(ArtifactError, match=r"spelt out added tokens of the tokenizer, such as '</think>'"):
        verify_shards(folder, workers=1)
    with pytest.raises(ArtifactError, match="spelt out"):
        check_identity(stale.manifest, folder, home)
    fresh = tokenize_source(source, thinking, folder)
    assert fresh.manifest["inputs"] != stale.manifest["inputs"]
    verify_shards(folder, workers=1)
    check_identity(fresh.manifest, folder, home)
    # Shards of a tokenizer without such tokens stay as they are.
    assert tokenizer.identity == {"tokenizer": tokenizer.sha256}
    rows = tmp_path / "chat.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}))
    chat = Source("chat", SftSpec(files=str(rows)), None)
    prepare_sft(chat, thinking, tmp_path / "chat", context_tokens=16, inputs={})
    check_identity(SftDataset.open(tmp_path / "chat").manifest, tmp_path / "chat", home)
    assert Shards.open(folder, deep=True).num_documents


def test_the_same_definition_with_another_end_of_text_is_another_tokenizer(
    thinking: Tokenizer, texts: Texts, tmp_path: Path
) -> None:
    """tokenizer.json is the same to the byte; documents end with another id."""
    home, other_home = tmp_path / "tokenizers" / "t", tmp_path / "other"
    for folder in (home, other_home):
        shutil.copytree(thinking.folder, folder)
        (folder / "manifest.json").unlink()
    config = json.loads((other_home / "tokenizer_config.json").read_text())
    (other_home / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|pad|>"}))
    one, other = Tokenizer(home), Tokenizer(other_home)
    assert one.sha256 == other.sha256 and one.eod != other.eod and one.identity != other.identity
    folder = tmp_path / "tokens" / "t" / "web"
    source = write_source(tmp_path / "documents", "web", texts(30, 1))
    first = tokenize_source(source, other, folder)
    with pytest.raises(ArtifactError, match=r"documents end with '<\|pad\|>', those of the tokenizer with"):
        check_identity(first.manifest, folder, home)
    again = tokenize_source(source, one, folder)
    assert again.manifest["inputs"] != first.manifest["inputs"] and again.document(0)[-1] == one.eod
    check_identity(again.manifest, folder, home)
