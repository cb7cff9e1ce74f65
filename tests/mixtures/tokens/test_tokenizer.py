"""tiktoken, tokenizers and transformers must agree on every id, and a folder must be reproducible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ArtifactError, ConfigError
from mixtures.tokens.new_tokenizer import SPECIAL_TOKENS, train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

VARIED = [
    "",
    " ",
    "\n\n\n",
    "Hello, world! It's 12345 o'clock; they've said we'll see.",
    "def f(x):\n    if x:\r\n\t\treturn x[1:]  # why?\n",
    "   leading and trailing   \n \n  x",
    "naïve Straße ſ ﬁ İstanbul ǅ",
    "日本語のテキスト。한국어 텍스트 ไทย हिन्दी العربية",
    "🙂👩‍👩‍👧‍👦🇩🇪 a\u0301 \u200b\u2028\u2029\u0085\u00a0\u3000end",
    "".join(chr(code) for code in range(0x300)),
    " " * 1000 + "x" + "\n" * 1000 + "\t " * 500,
    "a" * 3000 + "1" * 3000 + "!" * 3000,
]
LETTERS = st.sampled_from("aeinorst ethe,.'\n 019\t_—éß水🙂")


@pytest.fixture(scope="module")
def reference(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def hugging_face(tokenizer: Tokenizer) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer.folder)


def check_same(tokenizer: Tokenizer, reference: tokenizers.Tokenizer, text: str) -> None:
    assert tokenizer.engine == "tiktoken"
    if any(special in text for special in SPECIAL_TOKENS):
        return  # tokenizers would parse them
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text).ids == tokenizer.encode_array(text).tolist()
    assert tokenizer.decode(ids) == text
    assert all(len(SPECIAL_TOKENS) <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("text", VARIED, ids=range(len(VARIED)))
def test_varied_text_has_the_ids_of_tokenizers(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    check_same(tokenizer, reference, text)


@settings(deadline=None)
@given(text=st.text())
def test_random_unicode_has_the_ids_of_tokenizers(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    check_same(tokenizer, reference, text)


@settings(deadline=None)
@given(text=st.text(alphabet=LETTERS, max_size=200))
def test_text_that_merges_has_the_ids_of_tokenizers(tokenizer: Tokenizer, reference: Any, text: str) -> None:
    check_same(tokenizer, reference, text)


@pytest.mark.slow
def test_every_code_point_in_context_has_the_ids_of_tokenizers(tokenizer: Tokenizer, reference: Any) -> None:
    """The two regular-expression engines agree on which characters are letters, digits and white space."""
    points = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(points), 2000):
        check_same(
            tokenizer, reference, "".join(f"a{chr(code)}1 {chr(code)}." for code in points[start : start + 2000])
        )


def test_transformers_loads_the_folder_with_the_same_ids(tokenizer: Tokenizer, hugging_face: Any) -> None:
    for text in VARIED:
        assert hugging_face(text)["input_ids"] == tokenizer.encode(text)
    assert len(hugging_face) == tokenizer.vocab_size
    assert (hugging_face.bos_token_id, hugging_face.eos_token_id, hugging_face.pad_token_id) == (0, 0, 1)


def test_special_tokens_come_first_and_are_never_parsed_in_text(tokenizer: Tokenizer, reference: Any) -> None:
    assert [reference.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    for token in SPECIAL_TOKENS:
        ids = tokenizer.encode(f"a {token} b")
        assert min(ids) >= len(SPECIAL_TOKENS)
        assert tokenizer.decode(ids) == f"a {token} b"
    assert tokenizer.decode([tokenizer.eod]) == "<|endoftext|>"


def test_long_runs_do_not_exhaust_the_regex_engine(tokenizer: Tokenizer) -> None:
    for text in (" " * 2_000_000 + "a", "\n " * 500_000, "\t" * 1_000_000):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_training_is_deterministic_across_processes_and_threads(
    tokenizer: Tokenizer, texts: Callable[[int, int], list[str]], tmp_path: Path
) -> None:
    script = (
        "import sys, json; from pathlib import Path; from mixtures.tokens.new_tokenizer import train_tokenizer\n"
        "train_tokenizer(json.load(sys.stdin), 420, Path(sys.argv[1]), {'test': 1})"
    )
    env = os.environ | {"RAYON_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "true", "PYTHONHASHSEED": "17"}
    payload = json.dumps(texts(400, 7))
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "again")], input=payload, text=True, check=True, env=env
    )
    for path in sorted(tokenizer.folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_chat_equals_the_template_in_transformers(tokenizer: Tokenizer, hugging_face: Any) -> None:
    conversations = [
        [{"role": "user", "content": "Hi there.\n"}, {"role": "assistant", "content": " \n Hello!\n\nyou "}],
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "水?"},
            {"role": "assistant", "content": "🙂 水 1234"},
        ],
        [{"role": "user", "content": "no answer"}],
    ]
    for messages in conversations:
        ids, loss = tokenizer.chat(messages)
        expected = hugging_face.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        assert ids == expected["input_ids"]
        assert loss == [bool(x) for x in expected["assistant_masks"]]
        prompt, _ = tokenizer.chat(messages, answer_next=True)
        assert prompt == hugging_face.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


@settings(deadline=None)
@given(user=st.text(max_size=40), answer=st.text(max_size=40))
def test_random_chat_equals_the_template(tokenizer: Tokenizer, hugging_face: Any, user: str, answer: str) -> None:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    ids, loss = tokenizer.chat(messages)
    expected = hugging_face.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    assert ids == expected["input_ids"]
    assert loss == [bool(x) for x in expected["assistant_masks"]]


def test_a_vocabulary_below_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"260 entries cannot hold.*\n.*at least 261"):
        train_tokenizer(["text"], 260, tmp_path / "small", {})
    assert not list(tmp_path.iterdir())


def test_a_missing_or_altered_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no tokenizer here"):
        Tokenizer.load(tmp_path)
    for path in tokenizer.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Tokenizer.load(tmp_path).sha256 == tokenizer.sha256
    definition = tmp_path / "tokenizer.json"
    definition.write_bytes(definition.read_bytes().replace(b'"version": "1.0"', b'"version": "1.1"'))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: sha256 differs"):
        Tokenizer.load(tmp_path)
