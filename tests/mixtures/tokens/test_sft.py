"""Conversations to ids and masks: what carries loss, what is cut, what is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ArtifactError, DataError
from configs.schema import SftSpec
from mixtures.sources.source import Source
from mixtures.tokens.sft import SftDataset, prepare_sft
from mixtures.tokens.tokenizer import Tokenizer

Conversation = list[dict[str, str]]
LONG = 100_000

roles = st.sampled_from(["user", "assistant", "system"])
message = st.fixed_dictionaries({"role": roles, "content": st.text(max_size=30)})
conversation = st.lists(message, min_size=1, max_size=6)


@pytest.fixture(scope="session")
def make(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, write_rows: Callable[..., Path]
) -> Callable[..., SftDataset]:
    def build(rows: list[Conversation], context_tokens: int = LONG) -> SftDataset:
        root = tmp_path_factory.mktemp("sft")
        write_rows(root / "corpora" / "chat" / "part-00000.parquet", messages=rows)
        source = Source("chat", SftSpec(hub="org/chat", folder="chat"), root)
        return prepare_sft(source, tokenizer, root / "out", context_tokens=context_tokens, inputs={})

    return build


def spoken(messages: Conversation) -> str:
    """What an assistant says in a conversation, as the loss should see it."""
    return "".join(m["content"].strip() + "<|endoftext|>" for m in messages if m["role"] == "assistant")


def written(messages: Conversation) -> str:
    end = {"assistant": "<|endoftext|>"}
    return "".join(f"<|{m['role']}|>\n{m['content'].strip()}{end.get(m['role'], '')}\n" for m in messages)


@settings(deadline=None)
@given(rows=st.lists(conversation, min_size=1, max_size=5))
def test_masked_tokens_decode_to_what_the_assistant_says(
    make: Callable[..., SftDataset], tokenizer: Tokenizer, rows: list[Conversation]
) -> None:
    answered = [row for row in rows if any(m["role"] == "assistant" for m in row)]
    if not answered:
        with pytest.raises(DataError, match=f"none of {len(rows)} conversations has an assistant's token"):
            make(rows)
        return
    dataset = make(rows)
    assert len(dataset) == len(answered)
    assert dataset.dropped == len(rows) - len(answered)
    for i, messages in enumerate(answered):
        tokens, mask = dataset[i]
        assert tokens.dtype == np.int64 and mask.dtype == np.bool_ and len(tokens) == len(mask) + 1
        assert tokenizer.decode(tokens) == written(messages)
        assert tokenizer.decode(tokens[1:][mask]) == spoken(messages)
        assert np.count_nonzero(tokens[1:][mask] == tokenizer.eod) == sum(m["role"] == "assistant" for m in messages)


LESSON = [{"role": "user", "content": "Name the river."}, {"role": "assistant", "content": "It is the Stone, 1984."}]


def test_one_conversation_by_hand(make: Callable[..., SftDataset], tokenizer: Tokenizer) -> None:
    tokens, mask = make([LESSON])[0]
    answer = [*tokenizer.encode("It is the Stone, 1984."), 0]
    prompt = [2, *tokenizer.encode("\nName the river.\n"), 3, *tokenizer.encode("\n")]
    newline = tokenizer.encode("\n")
    assert tokens.tolist() == prompt + answer + newline
    # One shorter: the first token is no label.
    assert mask.tolist() == [False] * (len(prompt) - 1) + [True] * len(answer) + [False] * len(newline)


def test_long_examples_are_cut_and_counted(make: Callable[..., SftDataset]) -> None:
    whole, whole_mask = make([LESSON])[0]
    prompt = int(np.argmax(whole_mask)) + 1
    context = prompt + 2
    dataset = make([LESSON, LESSON], context)
    tokens, mask = dataset[1]
    np.testing.assert_array_equal(tokens, whole[: context + 1])
    np.testing.assert_array_equal(mask, whole_mask[:context])
    assert (len(dataset), dataset.truncated, dataset.dropped) == (2, 2, 0)
    assert dataset.manifest["truncated"] == 2
    # Exactly as long as the context: nothing is cut.
    assert make([LESSON], len(whole) - 1).truncated == 0


def test_an_example_cut_before_its_answer_is_dropped(make: Callable[..., SftDataset]) -> None:
    prompt = int(np.argmax(make([LESSON])[0][1])) + 1
    short = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    dataset = make([LESSON, short], prompt - 1)
    assert (len(dataset), dataset.dropped) == (1, 1)
    assert dataset.manifest["dropped"] == {"no assistant token": 1}


@settings(deadline=None, max_examples=30)
@given(rows=st.lists(conversation, min_size=1, max_size=5), context=st.integers(1, 60))
def test_opening_with_a_shorter_context_equals_preparing_with_it(
    make: Callable[..., SftDataset], rows: list[Conversation], context: int
) -> None:
    rows = [*rows, [{"role": "assistant", "content": ""}]]  # always one example that fits: role, newline, end
    try:
        expected = make(rows, context)
    except DataError:
        return  # not even that fits
    opened = SftDataset.open(make(rows).folder, context)
    assert len(opened) == len(expected)
    assert (opened.truncated, opened.dropped) == (expected.truncated, expected.dropped)
    for i in range(len(expected)):
        for ours, theirs in zip(opened[i], expected[i], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_the_same_conversations_give_the_same_bytes(make: Callable[..., SftDataset]) -> None:
    first, second = make([LESSON] * 3), make([LESSON] * 3)
    assert first.fingerprint == second.fingerprint != make([LESSON] * 2).fingerprint
    for path in first.folder.iterdir():
        assert path.read_bytes() == (second.folder / path.name).read_bytes()


def test_damaged_sets_are_refused(make: Callable[..., SftDataset]) -> None:
    folder = make([LESSON] * 3).folder
    path = folder / "loss_mask.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=r"loss_mask\.npy: \d+ bytes found"):
        SftDataset.open(folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    SftDataset.open(folder)
    with pytest.raises(ArtifactError, match=r"loss_mask\.npy: sha256 differs"):
        SftDataset.open(folder, deep=True)
    (folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no complete SFT set here"):
        SftDataset.open(folder)


def test_a_malformed_row_leaves_no_set(tokenizer: Tokenizer, tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    rows: list[Any] = [LESSON, [{"role": "oracle", "content": "x"}]]
    write_rows(tmp_path / "corpora" / "chat" / "part-00000.parquet", messages=rows)
    source = Source("chat", SftSpec(hub="org/chat", folder="chat"), tmp_path)
    with pytest.raises(
        DataError, match=r"part-00000\.parquet row 1: messages: message 0 has the unknown role 'oracle'"
    ):
        prepare_sft(source, tokenizer, tmp_path / "out", context_tokens=9, inputs={})
    assert not (tmp_path / "out").exists()
