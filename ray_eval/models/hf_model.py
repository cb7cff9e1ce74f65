"""Any causal language model of `transformers`, scored like our own Llama (`scorer.CausalLM`).

In: a folder with config.json and *.safetensors. Out: next-token log-probabilities at chosen places only.

The body runs over whole rows. The output layer is the model's own code, with whatever it does to logits (soft caps,
scales, biases), in fp32 and in chunks: it is called with its body replaced by a function that answers with the states
of the places in question.

What a model can do is not looked up but proved on a few random tokens when it is loaded:

    its output code on gathered states    equals its whole forward pass; else its own `logits_to_keep`, a row at a time;
                                          else the model is refused
    a row with branches                   equals rows without, also beyond every window of attention that its config
                                          names; else (ALiBi, recurrent states) `shares_prefixes` is False, and it is
                                          given rows of one sequence each
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from configs.errors import ArtifactError, one_line
from ray_eval.models.hf_masks import Masks, length_dependent_beyond, windows
from ray_eval.models.precision import WIDER, precision_of

if TYPE_CHECKING:
    from ray_eval.models.batches import RowBatch
    from ray_eval.models.tree_attention import Form, Mask

LOGITS_IN_A_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 27}
"""Logits computed at once, 4 bytes each; on a CPU they stay in its cache."""
LEAST_ROWS = 128
"""Rows of logits computed at once where the vocabulary is large: with fewer, each number of the output layer is read
from memory for too little work."""
PROBE_TOKENS = 8
"""Tokens in each part of a probe's row, without windows."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Error of a probe's centred logits, relative to their size. What is wrong differs by a tenth and more."""


class HFModel:
    """A checkpoint ready to score (`scorer.CausalLM`)."""

    shares_prefixes: bool
    """Takes rows with branches; where it does not, a batch has no mask and each row one sequence."""
    places_at_once = 1
    operations_per_token: float
    operations_per_head: float

    def __init__(
        self, folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu", trust_remote_code: bool = False
    ) -> None:
        """trust_remote_code: run the Python code that comes with the model.

        Raises ArtifactError for a model that transformers cannot load from safetensors, weights that are missing or not
        finite, and a model whose logits cannot be had at chosen places.
        """
        self.device = torch.device(device)
        self._dtype = dtype
        self._model = _load(folder, dtype, trust_remote_code).to(self.device)
        config = self._model.config.get_text_config(decoder=True)
        self._masks = Masks(config)
        self._alone_beyond = length_dependent_beyond(config)
        self._body: nn.Module | None = None  # None: its own logits, a row at a time
        with torch.inference_mode():
            self._choose_output(folder)
            self.shares_prefixes = self._can_share(config)
        embeddings = self._model.get_input_embeddings().weight
        outside: list[nn.Module] = self._outside(self._body) if self._body is not None else []
        head = sum(w.numel() for module in outside for w in module.parameters(recurse=False))
        self.operations_per_head = 2.0 * (head or embeddings.numel())
        every = {id(w): w.numel() for w in self._model.parameters()}
        self.operations_per_token = 2.0 * max(sum(every.values()) - max(head, embeddings.numel()), 1)

    @property
    def forms(self) -> tuple[tuple[Form, ...], str]:
        return ("padded",), "transformers takes a mask of numbers"

    @torch.inference_mode()
    def log_probabilities(self, batches: Sequence[RowBatch]) -> Tensor:
        """log P(target_token[i]) after the place heads[target_head[i]], float32 [N], in nats, batch after batch."""
        return torch.cat([self._log_probabilities(batch) for batch in batches])

    def _log_probabilities(self, batch: RowBatch) -> Tensor:
        assert batch.mask is None or self.shares_prefixes
        result = torch.empty(len(batch.target_head), dtype=torch.float32, device=self.device)
        heads = batch.target_head.cpu().numpy()
        for first, logits in self._outputs(batch):
            start, stop = np.searchsorted(heads, [first, first + len(logits)]).tolist()
            local = batch.target_head[start:stop] - first
            result[start:stop] = logits[local, batch.target_token[start:stop]] - logits.logsumexp(-1)[local]
        return result

    def _outputs(self, batch: RowBatch) -> Iterator[tuple[int, Tensor]]:
        """(number of the first head, float32 logits [heads, vocabulary]), until all heads are done."""
        if self._body is None:
            for first, tokens, places in _single_rows(batch):
                yield first, self._own_logits(tokens, places)
            return
        if self._alone_beyond is not None and batch.tokens.shape[1] > self._alone_beyond:
            alone = [self._states(tokens, places) for _, tokens, places in _single_rows(batch)]
            states = torch.cat(alone)
        else:
            states = self._states(batch.tokens, batch.heads, batch.positions, batch.mask)
        rows = max(LEAST_ROWS, LOGITS_IN_A_CHUNK[self.device.type] // self._vocab)
        for first in range(0, len(states), rows):
            yield first, self._logits(states[first : first + rows])

    def _states(
        self, tokens: Tensor, places: Tensor, positions: Tensor | None = None, mask: Mask | None = None
    ) -> Tensor:
        """Hidden states [H, hidden] of the body at H places of the flattened rows; arguments as in `RowBatch`."""
        assert self._body is not None
        # Without branches positions are the model's default, and padding on the right is seen by nobody.
        branches: dict[str, Any] = {}
        if mask is not None:
            assert isinstance(mask, Tensor) and positions is not None
            branches = {"attention_mask": self._masks(mask, positions, self._dtype), "position_ids": positions}
        output = self._body(input_ids=tokens, use_cache=False, **branches)
        return output.last_hidden_state.flatten(0, 1)[places]

    def _logits(self, states: Tensor) -> Tensor:
        """float32 [H, vocabulary] of the model's own output code on states [H, hidden]."""
        assert self._body is not None
        with _answering(self._body, states[None].float()):
            nothing = torch.zeros(1, len(states), dtype=torch.int64, device=self.device)
            return self._model(input_ids=nothing, use_cache=False).logits[0].float()

    def _own_logits(self, tokens: Tensor, places: Tensor) -> Tensor:
        """float32 [H, vocabulary] at H places of one row [1, T]."""
        return self._model(input_ids=tokens, use_cache=False, logits_to_keep=places).logits[0].float()

    # ------------------------------------------------------------------------------------------ proofs

    def _choose_output(self, folder: Path) -> None:
        tokens = self._random(2 * PROBE_TOKENS)[None]
        places = torch.arange(0, 2 * PROBE_TOKENS, 2, device=self.device)
        try:
            whole = self._model(input_ids=tokens, use_cache=False).logits[0].float()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a package or a kernel that it needs is not here, or its own code fails
            raise ArtifactError(f"its forward pass fails ({one_line(error)})", where=folder) from error
        if wrong := int((~whole.isfinite()).sum()):
            precision = precision_of(self._dtype)
            problem = f"{wrong} of {whole.numel()} logits are NaN or infinite in {precision}, on random tokens"
            raise ArtifactError(problem, where=folder, hint=WIDER[precision])
        self._vocab = whole.shape[-1]
        for body in _bodies(self._model):
            self._body = body
            narrow = _widen(self._outside(body))
            if self._agrees(lambda: self._logits(self._states(tokens, places)), whole[places]):
                return
            for module, name, weight in narrow:
                setattr(module, name, weight)
        self._body = None
        if not self._agrees(lambda: self._own_logits(tokens, places), whole[places]):
            raise ArtifactError(
                f"{type(self._model).__name__} cannot be scored: its logits at chosen places are not those of its"
                " whole forward pass",
                where=folder,
                valid="a causal language model of transformers",
            )

    def _can_share(self, config: Any) -> bool:
        """Do rows with branches equal rows without?"""
        if self._body is None or self._alone_beyond is not None:
            return False
        if "position_ids" not in inspect.signature(self._body.forward).parameters:
            return False  # positions could not follow the branches
        longest = getattr(config, "max_position_embeddings", None) or max(windows(config), default=0) * 2 + 256
        return all(self._agrees_beyond(window, longest) for window in (0, *windows(config)) if window < longest)

    def _agrees_beyond(self, window: int, longest: int) -> bool:
        """A prefix of more than `window` tokens with two branches, against each branch in a row of its own."""
        first = max(PROBE_TOKENS, window // 4)  # what a window that counts places, not positions, would lose
        prefix = min(window + first, longest - first)
        if prefix < 1:
            return False
        total, second = prefix + first + PROBE_TOKENS, prefix + first
        tokens = self._random(total)
        place = torch.arange(total, device=self.device)
        positions = torch.where(place < second, place, place - first)
        ends = torch.where((place >= prefix) & (place < second), second, total)
        mask = (place[None, :] <= place[:, None]) & (place[:, None] < ends[None, :])
        last = torch.arange(second - PROBE_TOKENS, total, device=self.device)  # of the first branch, then the second

        def alone(row: Tensor) -> Tensor:
            places = torch.arange(len(row) - PROBE_TOKENS, len(row), device=self.device)
            return self._logits(self._states(row[None], places))

        apart = torch.cat([alone(tokens[:second]), alone(torch.cat([tokens[:prefix], tokens[second:]]))])
        return self._agrees(
            lambda: self._logits(self._states(tokens[None], last, positions[None], mask[None, None])), apart
        )

    def _agrees(self, compute: Callable[[], Tensor], reference: Tensor) -> bool:
        """Are the logits [H, vocabulary] those of `reference`, but for rounding? A failure to compute them is a no."""
        try:
            logits = compute()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # asked for what it cannot do, a model may raise anything
            return False
        if logits.shape != reference.shape:
            return False
        centred = reference - reference.mean(-1, keepdim=True)
        error = logits - logits.mean(-1, keepdim=True) - centred
        return bool((error.norm(dim=-1) <= TOLERANCE[self._dtype] * centred.norm(dim=-1)).all())

    def _random(self, count: int) -> Tensor:
        vocab = self._model.get_input_embeddings().weight.shape[0]
        return torch.randint(vocab, (count,), generator=torch.Generator().manual_seed(0)).to(self.device)

    def _outside(self, body: nn.Module) -> list[nn.Module]:
        """The modules that turn the body's states into logits."""
        inside = set(body.modules())
        return [module for module in self._model.modules() if module not in inside]


class _States(BaseModelOutput):
    """What a body returns, with nothing but states in it."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


@contextlib.contextmanager
def _answering(body: nn.Module, states: Tensor) -> Iterator[None]:
    """Let `body` answer every call with these states [1, H, hidden]."""
    vars(body)["forward"] = lambda *_, **__: _States(last_hidden_state=states)
    try:
        yield
    finally:
        del vars(body)["forward"]


def _bodies(model: Any) -> Iterator[nn.Module]:
    """Modules whose states the output layer may take, the likeliest first."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    largest = max(model.children(), key=lambda child: sum(w.numel() for w in child.parameters()), default=None)
    for body in dict.fromkeys((decoder, model.base_model, largest)):
        if body is not None and body is not model:
            yield body


def _widen(modules: list[nn.Module]) -> list[tuple[nn.Module, str, Tensor]]:
    """Weights of some modules to fp32, those they share with others copied; returns what they were."""
    replaced = []
    for module in modules:
        weights = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, weight in weights:
            if weight.is_floating_point() and weight.dtype != torch.float32:
                wide = weight.detach().float()
                replaced.append((module, name, weight))
                setattr(module, name, nn.Parameter(wide, False) if isinstance(weight, nn.Parameter) else wide)
    return replaced


def _single_rows(batch: RowBatch) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each row without its padding, of a batch without branches: (its first head, tokens [1, T], its heads' places)."""
    height, width = batch.tokens.shape
    first = 0
    for row, places in enumerate(batch.heads.split(torch.bincount(batch.heads // width, minlength=height).tolist())):
        local = places - row * width
        yield first, batch.tokens[row : row + 1, : int(local[-1]) + 1], local  # the last token predicts the last target
        first += len(places)


def _load(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The model in evaluation mode, all weights read from safetensors and finite."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it warns of padding without a mask, which is meant (see `_states`)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of transformers, safetensors, torch, or code of the model's own
        valid = "a causal language model of transformers, in safetensors"
        raise ArtifactError(f"transformers cannot load it ({one_line(error)})", where=folder, valid=valid) from error
    if missing := sorted(report["missing_keys"]):
        named = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ArtifactError(f"weight {named} is missing", where=folder)
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not weight.isfinite().all():
            wrong = int((~weight.isfinite()).sum())
            problem = f"weight {name} holds {wrong} NaN or infinite numbers in {precision_of(dtype)}"
            raise ArtifactError(problem, where=folder, hint=WIDER[precision_of(dtype)])
    return model.eval()
