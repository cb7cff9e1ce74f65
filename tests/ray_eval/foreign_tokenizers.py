"""Tokenizers as models of others bring them, trained on a few words: with and without BOS, of several kinds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCAB = 400


def _trained(tokenizer: Tokenizer, texts: Sequence[str], special: Sequence[str], **options: object) -> Tokenizer:
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=list(special), **options))
    return tokenizer


def metaspace(texts: Sequence[str]) -> tuple[Tokenizer, dict[str, str]]:
    """As Llama 2: spaces become `▁`, one is put before each text, and BOS before that."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    _trained(tokenizer, [text.replace(" ", "▁") for text in texts], ["<unk>", "<s>", "</s>", *bytes_])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _byte_level(texts: Sequence[str], special: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, texts, special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def gpt2(texts: Sequence[str]) -> tuple[Tokenizer, dict[str, str]]:
    """Nothing is put before a text; BOS and EOS are one token."""
    return _byte_level(texts, ["<|endoftext|>"]), {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def only_eos(texts: Sequence[str]) -> tuple[Tokenizer, dict[str, str]]:
    """As Qwen: there is no BOS."""
    return _byte_level(texts, ["<|im_end|>"]), {"eos_token": "<|im_end|>"}


def llama3(texts: Sequence[str]) -> tuple[Tokenizer, dict[str, str]]:
    """Byte-level with BOS before every text."""
    tokenizer = _byte_level(texts, ["<|begin|>", "<|end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return tokenizer, {"bos_token": "<|begin|>", "eos_token": "<|end|>"}


def around(texts: Sequence[str]) -> tuple[Tokenizer, dict[str, str]]:
    """A token before every text and one behind it."""
    tokenizer = _byte_level(texts, ["<s>", "</s>"])
    pairs = [("<s>", 0), ("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pairs)
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


KINDS: dict[str, Callable[[Sequence[str]], tuple[Tokenizer, dict[str, str]]]] = {
    "metaspace": metaspace, "gpt2": gpt2, "only_eos": only_eos, "llama3": llama3, "around": around,
}  # fmt: skip


def save_tokenizer(folder: Path, kind: str, texts: Sequence[str]) -> int:
    """Save one as `tokenizer.json` and `tokenizer_config.json`; returns the number of its entries."""
    tokenizer, named = KINDS[kind](texts)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False} | named
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()
