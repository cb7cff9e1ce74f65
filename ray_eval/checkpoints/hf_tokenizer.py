"""The tokenizer of a model that was not trained here, used as lm-evaluation-harness 0.4.13 uses it.

In: a folder that `transformers.AutoTokenizer` loads. Out: an `encoding.Encoder`. The rules of the harness's HFLM:
special tokens are those the tokenizer itself adds, none where the text begins with the prefix token spelt out; that
prefix, the BOS token or else the EOS token, stands for an empty context.

The files of a tokenizer do not decide its ids alone. AutoTokenizer chooses a class by config.json (`model_type`,
`auto_map`) and by tokenizer_config.json, and some classes replace the normalizer and pre-tokenizer of tokenizer.json
by their own. `HFTokenizer.sha256` is therefore a hash of what was loaded, not of files.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.artifacts import fingerprint, sha256_file
from configs.errors import ArtifactError, one_line
from configs.untrusted.checks import understood

READ_BY_PYTHON = ("*.json", "*.model", "*.txt", "*.tiktoken", "*.py")
"""Files that a tokenizer written in Python may read."""
CODE_OF_OTHERS = "transformers_modules."
"""The package into which transformers copies code that comes with a model."""


class HFTokenizer:
    """Text to ids, as the harness asks a model's own tokenizer for them."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        """Raises ArtifactError where transformers cannot load it, or it has neither BOS nor EOS token."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, use_fast=True, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except BaseException as error:  # of transformers, tokenizers (Rust panics too), or code of the model's own
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            valid = "tokenizer.json, or another tokenizer that transformers loads"
            raise ArtifactError(
                f"transformers cannot load its tokenizer ({one_line(error)})", where=folder, valid=valid
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
        self.sha256 = fingerprint(self._identity(folder))
        """Hash of everything that decides the ids of a text; only versions of packages are left out."""

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

    def _identity(self, folder: Path) -> dict[str, Any]:
        """What decides the ids of a text. Call it after the first text was encoded: until then the backend may be set
        to truncate or to pad."""
        found, kind = self._tokenizer, type(self._tokenizer)
        is_fast = getattr(found, "is_fast", False)
        identity: dict[str, Any] = {
            "class": kind.__qualname__,
            "prefix": [self.eod, self._spelling, self.bos_policy],
            "split_special_tokens": bool(getattr(found, "split_special_tokens", False)),  # not part of the backend
        }
        if is_fast:  # encoding is left to the backend, whose definition holds every setting
            identity["backend"] = hashlib.sha256(found.backend_tokenizer.to_str().encode()).hexdigest()
        if not is_fast or not kind.__module__.startswith("transformers."):
            identity["files"] = {
                path.name: sha256_file(path) for pattern in READ_BY_PYTHON for path in folder.glob(pattern)
            }
            # auto_map may name code of another repository, which lies elsewhere.
            own = [part for part in kind.__mro__ if part.__module__.startswith(CODE_OF_OTHERS)]
            identity["code"] = [sha256_file(Path(inspect.getfile(part))) for part in own]
        return identity
