"""The tokenizer of a model that was not trained here, used as lm-evaluation-harness 0.4.13 uses it.

In: a folder that `transformers.AutoTokenizer` loads. Out: an `encoding.Encoder`. The rules of the harness's HFLM:
special tokens are those the tokenizer itself adds, none where the text begins with the prefix token spelt out; that
prefix, the BOS token or else the EOS token, stands for an empty context.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.artifacts import sha256_files
from configs.errors import ArtifactError
from configs.untrusted.checks import understood
from ray_eval.checkpoints import reason

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
"""What may decide how text is encoded, of those there are."""


class HFTokenizer:
    """Text to ids, as the harness asks a model's own tokenizer for them."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        """Raises ArtifactError where transformers cannot load it, or it has neither BOS nor EOS token."""
        from transformers import AutoTokenizer

        self.sha256 = tokenizer_sha256(folder)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except BaseException as error:  # of transformers, tokenizers (Rust panics too), or code of the model's own
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            valid = "tokenizer.json, or another tokenizer that transformers loads"
            raise ArtifactError(
                f"transformers cannot load its tokenizer ({reason(error)})", where=folder, valid=valid
            ) from error
        with understood(folder):
            self._describe(folder)

    def _describe(self, folder: Path) -> None:
        prefix = self._tokenizer.bos_token_id
        if prefix is None:
            prefix = self._tokenizer.eos_token_id
        if prefix is None:
            hint = "name one of them in tokenizer_config.json, as lm-evaluation-harness needs it too"
            raise ArtifactError("the tokenizer has neither a BOS nor an EOS token", where=folder, hint=hint)
        self.eod = int(prefix)
        """What stands for an empty context."""
        self._spelling = str(self._tokenizer.decode(self.eod))
        around = [str(self._tokenizer.decode(i)) for i in self._encode([""], special=True)[0]]
        self.bos_policy = f"{' '.join(around) or 'none'}; {self._spelling} stands for an empty context"
        self.max_length = int(self._tokenizer.model_max_length)
        self.base_vocabulary = int(self._tokenizer.vocab_size)
        """Entries without the added tokens."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that stand at the beginning of a sequence."""
        spelt = [text.startswith(self._spelling) for text in texts]
        plain = iter(self._encode([t for t, s in zip(texts, spelt, strict=True) if not s], special=True))
        marked = iter(self._encode([t for t, s in zip(texts, spelt, strict=True) if s], special=False))
        return [next(marked) if s else next(plain) for s in spelt]

    def _encode(self, texts: list[str], *, special: bool) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in found["input_ids"]]


def tokenizer_sha256(folder: Path) -> str:
    """sha256 over the files of a tokenizer, in name order."""
    return sha256_files([path for name in TOKENIZER_FILES if (path := folder / name).is_file()])
