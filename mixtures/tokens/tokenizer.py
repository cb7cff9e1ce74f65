"""Byte-level BPE or any other tokenizer.json: text to token ids and back, and the chat format.

In: a folder that `mixtures.tokens.new_tokenizer` wrote (or an export's copy of it): tokenizer.json of Hugging Face
`tokenizers`, and tokenizer_config.json, which names the special tokens. Out: ids.

tiktoken encodes wherever its ids provably equal those of `tokenizers` (`mixtures.tokens.bpe`), else `tokenizers`
itself. Special tokens are only ever placed by this project: their spelling inside a document is ordinary text. Added
tokens that are not special, such as `<think>`, are found in text, as their publisher meant them to be.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from configs.artifacts import MANIFEST, read_object, verify_files
from configs.errors import ArtifactError
from configs.untrusted.checks import JSON_BYTES, understood
from mixtures.sources.formats import ROLES
from mixtures.tokens.bpe import recognised, tiktoken_encoding

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

WORTH_TIKTOKEN_CHARS = 1_000_000
"""Text in batches after which tiktoken is loaded."""
EOD_TOKEN, PAD_TOKEN = "<|endoftext|>", "<|pad|>"
LARGEST_VOCAB = 2**24
"""Entries; the largest in use have about 2^18. Sizes are allocated by it."""

# The `generation` marks let transformers return the same loss mask as `Tokenizer.chat`.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' }}{% generation %}{{ message['content'] | trim + eos_token }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|' + message['role'] + '|>\n' + message['content'] | trim + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True)
class SpecialIds:
    """The tokens that only this project places."""

    eod: int
    """Ends every document; also EOS, and the prefix of unconditional scoring."""
    pad: int
    roles: dict[str, int]
    """The token that opens a message of each role."""

    @classmethod
    def read(cls, folder: Path) -> SpecialIds:
        """Read the ids from a tokenizer's folder without loading it. Raises ArtifactError where one is missing."""
        with understood(folder / "tokenizer.json", hint="delete the folder, rerun"):
            added = read_object(folder / "tokenizer.json")["added_tokens"]
            return cls.named(folder, {token["content"]: token["id"] for token in added})

    @classmethod
    def named(cls, folder: Path, ids: Mapping[str, int]) -> SpecialIds:
        """ids: of the tokenizer's added tokens. Raises ArtifactError where one is missing."""
        config = read_object(folder / "tokenizer_config.json")
        try:
            roles = {role: ids[token] for role, token in ROLES.items()}
            return cls(ids[config["eos_token"]], ids[config["pad_token"]], roles)
        except (KeyError, TypeError) as error:  # TypeError: it is described by an object, as others may do
            raise ArtifactError(f"no special token {error}", where=folder, hint="delete the folder, rerun") from None


class Tokenizer:
    """Text to ids and back; `Tokenizer.load(folder)` makes one."""

    bos_policy = "none; the end-of-document token stands for an empty context"
    """What stands around a text that is scored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        definition = (folder / "tokenizer.json").read_bytes()
        self.sha256 = hashlib.sha256(definition).hexdigest()
        """sha256 of tokenizer.json."""
        self._tokenizers = parse_definition(definition, folder / "tokenizer.json")
        self._tokenizers.encode_special_tokens = True
        added = self._tokenizers.get_added_tokens_decoder()
        self.recognised = recognised(added.values())
        """Spellings of added tokens that are not special: each is one token wherever it stands in a text."""
        self.special = SpecialIds.named(folder, {token.content: i for i, token in added.items()})
        self.eod = self.special.eod
        self._special_ids = {self.special.eod, self.special.pad, *self.special.roles.values()}
        self._spellings = "|".join(re.escape(str(self._tokenizers.id_to_token(i))) for i in sorted(self._special_ids))
        self._definition = definition
        self._batched_chars = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the ids: part of the key of whatever is made of them, and of its manifest."""
        eod_token = str(self._tokenizers.id_to_token(self.eod))
        return {"tokenizer": self.sha256} | _beside_definition(sorted(self.recognised), eod_token)

    @functools.cached_property
    def vocab_size(self) -> int:
        """Entries, special tokens included; every id is below it."""
        return max(self._tokenizers.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Raises ArtifactError where the folder holds no tokenizer or it differs from its manifest."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError("no tokenizer here", where=path, hint="python -m mixtures.tokenize --help")
        # An export carries the tokenizer without this manifest.
        if (folder / MANIFEST).is_file() and (manifest := read_object(folder / MANIFEST)).get("kind") == "tokenizer":
            with understood(folder / MANIFEST, hint="delete the folder, rerun"):
                verify_files(folder, manifest["files"], deep=True)
        return cls(folder)

    @functools.cached_property
    def _tiktoken(self) -> tiktoken.Encoding | None:
        spellings = (self._tokenizers.id_to_token(i) for i in self._special_ids)
        if not self.recognised.isdisjoint(spellings):  # not special, but only placed by us: `_encode_slowly` cuts them
            return None
        return tiktoken_encoding(json.loads(self._definition), self._tokenizers)

    @property
    def engine(self) -> str:
        """What encodes: tiktoken, or tokenizers."""
        return "tiktoken" if self._tiktoken else "tokenizers"

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; no special token is ever added or recognised. Lone surrogates become U+FFFD."""
        if self._tiktoken is not None:
            try:
                return self._tiktoken.encode(text, allowed_special=self.recognised, disallowed_special=())
            except BaseException as error:
                _unless_out_of_stack(error)
        return self._encode_slowly(_valid(text))

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """`encode` as an array, uint32 [tokens]; faster where the ids go to a file."""
        if self._tiktoken is not None:
            try:
                return self._tiktoken.encode_to_numpy(
                    _valid(text), allowed_special=self.recognised, disallowed_special=()
                )
            except BaseException as error:
                _unless_out_of_stack(error)
        return np.array(self._encode_slowly(_valid(text)), dtype=np.uint32)

    def _encode_slowly(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizers.encode(text, add_special_tokens=False).ids
        if not self._special_ids.isdisjoint(ids):
            # Some models know special tokens as ordinary entries too: their spelling is cut after its first character.
            pieces = re.split(f"(?<=(?={self._spellings}).)", text, flags=re.DOTALL)
            if len(pieces) > 1:
                return [i for piece in pieces for i in self._encode_slowly(piece)]
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each; the first texts go without tiktoken, which takes a second to load a large vocabulary."""
        self._batched_chars += sum(map(len, texts))
        if self._batched_chars < WORTH_TIKTOKEN_CHARS and "_tiktoken" not in vars(self):
            return [self._encode_slowly(_valid(text)) for text in texts]
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`, special tokens spelt out; bytes that are not UTF-8 become U+FFFD.

        `tokenizers` decodes whichever engine encoded: the two differ on ids without an entry and on some added tokens.
        """
        return self._tokenizers.decode([int(i) for i in ids], skip_special_tokens=False)

    def chat(self, messages: Sequence[Mapping[str, str]], *, answer_next: bool = False) -> tuple[list[int], list[bool]]:
        """Ids of a conversation in the tulu format, and which of them carry loss.

        `<|user|>\\n{content}\\n<|assistant|>\\n{content}<|endoftext|>\\n`: content is taken without surrounding white
        space; the assistant's content and its end-of-text carry loss. `answer_next` appends `<|assistant|>\\n` for an
        answer to come.
        """
        ids: list[int] = []
        loss: list[bool] = []

        def put(part: list[int], carries_loss: bool = False) -> None:
            ids.extend(part)
            loss.extend([carries_loss] * len(part))

        roles, newline = self.special.roles, self.encode("\n")
        for message in messages:
            role, content = message["role"], message["content"].strip()
            if role == "assistant":
                put([roles[role], *newline])
                put([*self.encode(content), self.eod], carries_loss=True)
                put(newline)
            else:
                put([roles[role], *self.encode(f"\n{content}\n")])
        if answer_next:
            put([roles["assistant"], *newline])
        return ids, loss


def _beside_definition(added_tokens: list[str], eod_token: str) -> dict[str, Any]:
    """What decides ids besides tokenizer.json, where it is not the usual: so most keys stay as they are."""
    added = {"added_tokens": added_tokens} if added_tokens else {}
    # The same tokenizer.json may end documents with another of its tokens: tokenizer_config.json names it.
    return added | ({"eod_token": eod_token} if eod_token != EOD_TOKEN else {})


def check_identity(manifest: Mapping[str, Any], where: Path, tokenizer: Path) -> None:
    """Refuse ids that the tokenizer no longer gives, though its tokenizer.json is the same.

    manifest: of what holds the ids, in the folder `where`; tokenizer: the folder of the tokenizer they were made with.
    Raises ArtifactError where added tokens such as `<think>` were spelt out, or documents end with another token.
    """
    with understood(tokenizer / "tokenizer.json", hint="delete the folder, rerun"):
        added = read_object(tokenizer / "tokenizer.json")["added_tokens"]
        wanted = sorted({token["content"] for token in added if not token["special"]})
        eod_token = str(read_object(tokenizer / "tokenizer_config.json")["eos_token"])
    made_with = {key: manifest[key] for key in ("added_tokens", "eod_token") if key in manifest}
    if made_with != _beside_definition(wanted, eod_token):
        if manifest.get("added_tokens", []) != wanted and wanted:
            problem = f"made by a version that spelt out added tokens of the tokenizer, such as {wanted[0]!r}"
        else:
            ended = manifest.get("eod_token", EOD_TOKEN)
            problem = f"its documents end with {ended!r}, those of the tokenizer with {eod_token!r}"
        raise ArtifactError(problem, where=where, hint="make it again: python -m mixtures.tokenize --help")


def parse_definition(definition: bytes, path: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, which neither cuts nor fills up what it encodes.

    Raises ArtifactError where the bytes of `path` are none, or one that cannot even encode a letter.
    """
    import tokenizers

    try:
        if len(definition) > JSON_BYTES:
            raise ValueError(f"{len(definition):,} bytes, valid: at most {JSON_BYTES:,}")
        found = tokenizers.Tokenizer.from_str(definition.decode())
        found.no_truncation()
        found.no_padding()
        if max(found.get_vocab(with_added_tokens=True).values()) >= LARGEST_VOCAB:
            raise ValueError(f"ids of {LARGEST_VOCAB:,} and more")
        found.encode("a", add_special_tokens=False)
    except BaseException as error:  # `tokenizers` raises bare exceptions, and Rust panics are not even those
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        problem = f"not a tokenizer.json that `tokenizers` reads ({error!s:.200})"
        raise ArtifactError(problem, where=path, hint="put back the one that was there, or take another") from None
    return found


def _valid(text: str) -> str:
    """`text` as UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _unless_out_of_stack(error: BaseException) -> None:
    """Pass over how tiktoken fails where a run of white space is too long for its engine."""
    if type(error).__name__ != "PanicException" and not (isinstance(error, ValueError) and "stack" in str(error)):
        raise error
