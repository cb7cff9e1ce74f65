"""A tokenizer of a study's own: trained on its sources, or taken from a tokenizer.json.

In: sample texts, or somebody's tokenizer.json. Out: `<data>/tokenizers/<id>/` with tokenizer.json (Hugging Face
`tokenizers`), tokenizer_config.json (so that `transformers.AutoTokenizer` loads the folder, chat template included)
and manifest.json, written last. `mixtures.tokens.tokenizer.Tokenizer.load` opens it.

A taken tokenizer keeps its ids; special tokens that it lacks are appended, and what it adds around a text of its own
accord (BOS) is removed, because this project places every special token itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import MANIFEST, atomic_folder, describe_file, fingerprint, read_object, write_json
from configs.errors import ArtifactError, ConfigError, DataError
from mixtures.sources.formats import ROLES
from mixtures.tokens.bpe import byte_of_letter
from mixtures.tokens.sampling import sampling_order
from mixtures.tokens.tokenizer import CHAT_TEMPLATE, EOD_TOKEN, PAD_TOKEN, Tokenizer, parse_definition

if TYPE_CHECKING:
    import tokenizers

    from configs.schema import StudyTokenizer
    from mixtures.sources.source import Source, Unit

TOKENIZER_VERSION = 2
SPECIAL_TOKENS = (EOD_TOKEN, PAD_TOKEN, *ROLES.values())
SMALLEST_VOCAB = len(SPECIAL_TOKENS) + 256
ENDS_OF_TEXT = (EOD_TOKEN, "<|end_of_text|>", "</s>", "<eos>", "[EOS]")
"""What published tokenizers call the end of a document, the likeliest first."""
SAMPLE_UNITS = 16
"""Files of a source that a sample is drawn from, so that it does not rest on the first file alone."""

# Words with one leading space or sign, digits in threes, punctuation with its line ends, white space. After cl100k,
# without its case-folding (whose Unicode tables differ between engines); runs of white space are cut at 128
# characters, because tiktoken's engine overflows its stack on documents that hold millions of spaces.
SPLIT_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s{0,127}[\r\n]"
    r"|\s{1,128}(?!\S)"
    r"|\s"
)


def tokenizer_inputs(spec: StudyTokenizer, rows: Mapping[str, Any]) -> dict[str, Any]:
    """What the study's tokenizer depends on; `rows` are the inputs of each of its sources."""
    common = {"version": TOKENIZER_VERSION, "vocab": spec.vocab}
    if spec.file is not None:
        return common | {"file": _described(Path(spec.file)), "end_of_text": spec.end_of_text}
    return common | {"sample_megabytes": spec.sample_megabytes, "sources": dict(rows)}


def make_tokenizer(
    spec: StudyTokenizer, sources: Sequence[Source], inputs: Mapping[str, Any], folder: Path
) -> Tokenizer:
    """The tokenizer that a study declares: the file it names, or one trained on a sample of each source."""
    if spec.file is not None:
        return take_tokenizer(Path(spec.file), spec.vocab, folder, inputs, spec.end_of_text)
    texts = (text for source in sources for text in sample_texts(source, spec.sample_megabytes))
    return train_tokenizer(texts, spec.vocab, folder, inputs)


def train_tokenizer(texts: Iterable[str], vocab: int, folder: Path, inputs: Mapping[str, Any]) -> Tokenizer:
    """Train a byte-level BPE on `texts` and write `folder`; equal texts in equal order give equal bytes.

    `vocab` counts special tokens; a small sample may not yield that many entries. `inputs` says what the sample was
    made from; the manifest keeps it beside its fingerprint. Raises ConfigError for a vocabulary below 261.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as HuggingFaceTokenizer

    if vocab < SMALLEST_VOCAB:
        raise ConfigError(
            f"tokenizer.vocab: {vocab} entries cannot hold {len(SPECIAL_TOKENS)} special tokens and 256 bytes",
            valid=f"at least {SMALLEST_VOCAB}",
        )
    split = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
    bytes_to_letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe = HuggingFaceTokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_to_letters])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(byte_of_letter()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return _write(bpe, EOD_TOKEN, PAD_TOKEN, vocab, folder, inputs)


def take_tokenizer(
    path: Path, vocab: int, folder: Path, inputs: Mapping[str, Any], end_of_text: str | None = None
) -> Tokenizer:
    """Write `folder` from the tokenizer.json at `path`.

    `vocab` is the model's vocabulary: ids from the last entry up to it are padding that no text uses. `end_of_text`
    names the token that ends a document (None: the first of ENDS_OF_TEXT that is there). Raises DataError where the
    file is no tokenizer.json, ConfigError where it has more than `vocab` entries or no such token.
    """
    from tokenizers import AddedToken

    hint = "name the file of Hugging Face"
    try:
        definition = read_object(path) | {"post_processor": None}
        given = parse_definition(json.dumps(definition).encode(), path)
    except ArtifactError as error:
        raise DataError(error.problem, where=path, hint=hint) from None
    wanted = (end_of_text,) if end_of_text else ENDS_OF_TEXT
    end = next((token for token in wanted if given.token_to_id(token) is not None), None)
    if end is None:
        specials = [token.content for token in given.get_added_tokens_decoder().values()]
        raise ConfigError(
            f"tokenizer.end_of_text: {' or '.join(map(repr, wanted))} is no token of {path}",
            valid=", ".join(specials) or "a token of the file",
        )
    missing = [token for token in (PAD_TOKEN, *ROLES.values()) if given.token_to_id(token) is None]
    # Also those that are there: an added token that is not special would be found in text.
    special_tokens = (end, PAD_TOKEN, *ROLES.values())
    given.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    entries = max(given.get_vocab(with_added_tokens=True).values()) + 1
    if entries > vocab:
        raise ConfigError(
            f"tokenizer.vocab: {vocab} is below the {entries} entries of {path} (with {len(missing)} special tokens)",
            valid=f"at least {entries}; larger is padding",
        )
    return _write(given, end, PAD_TOKEN, vocab, folder, inputs)


def sample_units(source: Source) -> list[Unit]:
    """The files of a sample: first in the order of the hash of their names, so spread over the source."""
    return sampling_order(source.units())[:SAMPLE_UNITS]


def sample_texts(source: Source, megabytes: float) -> Iterator[str]:
    """About `megabytes` million bytes (UTF-8) of a source: equal parts from the heads of up to SAMPLE_UNITS files."""
    units = sample_units(source)
    wanted = megabytes * 1e6
    size = 0.0
    for number, unit in enumerate(units, start=1):
        for document in unit.documents():
            if size >= wanted * number / len(units):
                break
            yield document.text
            size += len(document.text.encode("utf-8", "replace"))


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError("no such file", where=path, valid="a tokenizer.json", hint="mend tokenizer.file of the study")
    return describe_file(path)


def _write(
    bpe: tokenizers.Tokenizer, end: str, pad: str, vocab: int, folder: Path, inputs: Mapping[str, Any]
) -> Tokenizer:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": pad,
        "additional_special_tokens": list(ROLES.values()),
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    with atomic_folder(folder) as temporary:
        # Not `bpe.save`, which hides a full disk behind a bare Exception.
        (temporary / "tokenizer.json").write_text(bpe.to_str(pretty=True), encoding="utf-8")
        write_json(temporary / "tokenizer_config.json", config)
        names = ("tokenizer.json", "tokenizer_config.json")
        manifest = {
            "version": TOKENIZER_VERSION,
            "kind": "tokenizer",
            "entries": max(bpe.get_vocab(with_added_tokens=True).values()) + 1,
            "vocab": vocab,
            "inputs": fingerprint(inputs),
            "made_from": inputs,
            "files": {name: describe_file(temporary / name) for name in names},
        }
        write_json(temporary / MANIFEST, manifest, sealed=True)
    return Tokenizer.load(folder)
