"""Models that were not trained here: a folder, or an id of the Hugging Face Hub, as a checkpoint to score.

In: what the user typed after --model. Out: a `checkpoints.Checkpoint` whose scores lie, like those of a study named
`models`, where `python -m analysis.tables --study models` finds them: scale is the model's name (with `__` for the
slash, as lm-evaluation-harness writes it) and mixture its revision on the Hub (else `none`), so that the revisions of
one model stand side by side as the mixtures of one scale do. Stage is PT, step and tokens are 0:
nobody says how long it was trained.

Of the Hub only configs, tokenizers and *.safetensors are fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs.artifacts import fingerprint, read_object, sha256_file, sha256_files
from configs.errors import ArtifactError, ConfigError, MagicError, ResourceError, one_line
from configs.layout import StudyFolder
from configs.untrusted.checks import inside, understood
from mixtures.sources.hub import explained
from ray_eval.checkpoints.checkpoint import check_own_code, check_weight_files, read_weights, verify_weights
from ray_eval.checkpoints.hf_tokenizer import HFTokenizer
from ray_eval.checkpoints.identity import Identity
from ray_eval.models.llama import Llama
from ray_eval.models.llama_shape import is_plain_llama
from ray_eval.models.precision import precision_of
from ray_eval.models.scorer import CausalLM
from ray_eval.models.weights import Weights

STUDY = "models"
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
FILES = ("*.safetensors", "*.json", "*.model", "vocab.txt", "merges.txt")
CODE = "*.py"
UNWANTED = ("*/*", "consolidated*")
"""Folders with other formats, and Mistral's second copy of the weights."""
DEFAULT_CONTEXT_TOKENS = 2048
UNSET = 10**18
"""A tokenizer's model_max_length above it means that it was not set."""


@dataclass(frozen=True)
class HFCheckpoint:
    """A model in a local folder, or in this machine's cache of the Hub; a `checkpoints.Checkpoint`."""

    folder: Path
    source: str
    """Absolute folder, or id@commit on the Hub."""
    name: str
    revision: str
    """As the user named it; empty for the default."""
    checkpoint: str
    config_sha256: str
    """Hash of the contents of config.json: equal weights with another one are another model."""
    code_sha256: str
    """Hash of the Python files that came with it; empty where none are trusted."""
    encoding_sha256: str
    context_tokens: int
    precision: str
    trust_remote_code: bool
    out: Path
    """Folder of the studies that gets the scores."""

    @property
    def facts(self) -> dict[str, str]:
        trusted = {"trust_remote_code": "true", "code_sha256": self.code_sha256} if self.trust_remote_code else {}
        return {"model": self.source, "config_sha256": self.config_sha256} | trusted

    @property
    def columns(self) -> dict[str, str | int]:
        return {"study": STUDY, **self._identity.model_dump()}

    @property
    def score_file(self) -> Path:
        return self._identity.score_file(StudyFolder(self.out, STUDY))

    @property
    def _identity(self) -> Identity:
        return Identity(scale=_plain(self.name), mixture=_plain(self.revision) or "none", step=0, tokens=0)

    def verify(self) -> None:
        """Raises ArtifactError where the weights are not (any more) those that were found when scoring began."""
        if not self.folder.is_dir():
            hint = "put it on a disk that all machines share (for models of the Hub, HF_HOME)"
            raise ArtifactError("the model is not on this machine", where=self.folder, hint=hint)
        self._verify_config()
        verify_weights(self.folder, self.checkpoint, "when scoring began it was", hint="score it again")

    def _verify_config(self) -> None:
        now = _config_sha256(self.folder), _code_sha256(self.folder, self.trust_remote_code)
        if now != (self.config_sha256, self.code_sha256):
            problem = "config.json or the code that comes with it was changed since scoring began"
            raise ArtifactError(problem, where=self.folder, hint="score it again")

    def encoder(self) -> HFTokenizer:
        """Raises ArtifactError where it is not (any more) the one that was found when scoring began."""
        tokenizer = HFTokenizer(self.folder, trust_remote_code=self.trust_remote_code)
        if tokenizer.sha256 != self.encoding_sha256:
            hint = "score it again"
            raise ArtifactError("its tokenizer was changed since scoring began", where=self.folder, hint=hint)
        return tokenizer

    def read(self) -> Weights | None:
        if is_plain_llama(self.folder):
            self._verify_config()
            return read_weights(self)
        self.verify()
        return None

    def load(self, dtype: torch.dtype, devices: Sequence[str], weights: Weights | None) -> CausalLM:
        if weights is not None:
            return Llama(self.folder, weights, dtype=dtype, devices=devices)
        if len(devices) > 1:
            problem = "only a plain Llama is shared by several GPUs"
            raise ResourceError(problem, where=self.folder, hint="--gpus-per-worker 1")
        # Here, since transformers is optional and slow to import: exports of ours are scored without it.
        from ray_eval.models.hf_model import HFModel

        return HFModel(self.folder, dtype=dtype, device=devices[0], trust_remote_code=self.trust_remote_code)


def read_models(
    named: Sequence[str], out: Path, precision: str | None = None, trust_remote_code: bool = False
) -> tuple[list[HFCheckpoint], list[MagicError]]:
    """Each model that can be scored, and for each of the others why not; arguments as of `read_model`."""
    models: dict[Path, HFCheckpoint] = {}
    errors: list[MagicError] = []
    for name in dict.fromkeys(named):
        try:
            model = read_model(name, out, precision=precision, trust_remote_code=trust_remote_code)
            other = models.setdefault(model.score_file, model)
            if other is not model:
                hint = "score one of them with another --out, or from a folder of another name"
                raise ConfigError(f"{other.source} and {model.source} have the same name", where=name, hint=hint)
        except MagicError as error:
            errors.append(error)
    return list(models.values()), errors


def read_model(named: str, out: Path, *, precision: str | None = None, trust_remote_code: bool = False) -> HFCheckpoint:
    """A folder, or `id` or `id@revision` of the Hub, whose files are fetched where they are not here yet.

    precision: fp32, bf16 or fp16; None: as the weights are stored. trust_remote_code: allow the model Python code of
    its own. Raises ArtifactError naming what is missing, damaged or refused.
    """
    try:
        import transformers
    except ImportError:
        hint = 'pip install "transformers>=5.23", on every machine that scores'
        raise ResourceError("models of Hugging Face need the package transformers", hint=hint) from None

    folder, source, name, revision = _locate(named, trust_remote_code)
    check_weight_files(folder, hint="look for a revision or a copy of it in safetensors")
    _check_shards(folder)
    for file in ("config.json", "tokenizer_config.json"):
        if not trust_remote_code and (file == "config.json" or (folder / file).is_file()):
            hint = "--trust-remote-code runs it, if you trust where it comes from"
            check_own_code(folder / file, read_object(folder / file), hint)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # of transformers, or code of the model's own
        valid = f"a model that transformers {transformers.__version__} knows"
        raise ArtifactError(f"not understood ({one_line(error)})", where=folder / "config.json", valid=valid) from error
    tokenizer = HFTokenizer(folder, trust_remote_code=trust_remote_code)
    with understood(folder / "config.json"):
        vocabulary = int(config.get_text_config(decoder=True).vocab_size)
        context_tokens = _context_tokens(config, tokenizer)
    if tokenizer.base_vocabulary > vocabulary:
        problem = (
            f"{tokenizer.base_vocabulary} entries, but vocab_size is {vocabulary}: not the tokenizer of these weights"
        )
        raise ArtifactError(problem, where=folder, hint="put back the tokenizer that it was trained with")
    return HFCheckpoint(
        folder=folder,
        source=source,
        name=name,
        revision=revision,
        checkpoint=sha256_files(list(folder.glob("*.safetensors"))),
        config_sha256=_config_sha256(folder),
        code_sha256=_code_sha256(folder, trust_remote_code),
        encoding_sha256=tokenizer.sha256,
        context_tokens=context_tokens,
        precision=precision or precision_of(config.dtype),
        trust_remote_code=trust_remote_code,
        out=out,
    )


def _locate(named: str, code: bool) -> tuple[Path, str, str, str]:
    """(folder, source, name, revision) of a model; code: fetch its Python files too."""
    folder = Path(named).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return folder, str(folder), folder.name, ""
    match = HUB_ID.fullmatch(named)
    if match is None:
        raise ArtifactError("no such folder", where=named, valid="a folder, or `id` or `id@revision` of the Hub")
    name, revision = match["id"], match["revision"] or ""
    folder = _download(name, revision, code)
    return folder, f"{name}@{folder.name}", name, revision


def _download(name: str, revision: str, code: bool) -> Path:
    """The folder of a snapshot, which is named by its commit. Raises ArtifactError saying what keeps it away."""
    from huggingface_hub import snapshot_download

    wanted = [*FILES, CODE] if code else list(FILES)
    with explained(name, revision, "model", ArtifactError):
        return Path(
            snapshot_download(name, revision=revision or None, allow_patterns=wanted, ignore_patterns=list(UNWANTED))
        )


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    with understood(index):
        files = {inside(folder, name, index) for name in read_object(index).get("weight_map", {}).values()}
    if missing := sorted(path.name for path in files if not path.is_file()):
        problem = f"{len(missing)} of {len(files)} files of weights are missing ({missing[0]})"
        raise ArtifactError(problem, where=index, hint="it was copied in part: copy or fetch it again")


def _config_sha256(folder: Path) -> str:
    return fingerprint(read_object(folder / "config.json"))


def _code_sha256(folder: Path, trusted: bool) -> str:
    return fingerprint({path.name: sha256_file(path) for path in folder.glob(CODE)}) if trusted else ""


def _context_tokens(config: Any, tokenizer: HFTokenizer) -> int:
    """The model's longest input, by the rule of lm-evaluation-harness 0.4.13 (`resolve_max_length`)."""
    config = getattr(config, "text_config", None) or config
    for key in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := getattr(config, key, None)) is not None:
            return int(value)
    return tokenizer.max_length if tokenizer.max_length < UNSET else DEFAULT_CONTEXT_TOKENS


def _plain(name: str) -> str:
    """`name` as the name of a folder: letters, digits, '.', '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip("._-")
