"""What each optimizer step trains on.

In: a blend of token shards (pretraining) or a tokenized SFT set, and this process's place. Out: for step 1, 2, ... the
micro-batches of this data-parallel rank. The global order depends on the seed only: step t takes samples
(t-1) x batch ... t x batch of one sequence, and ranks share them, so that the number of devices changes nothing (but
rounding) and resuming needs no state but the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from megatron_train.model.packing import Segments, pack, padding
from megatron_train.ranks.parallel import Ranks
from mixtures.blend.blend import Blend, samples_of_step
from mixtures.blend.index import shuffled
from mixtures.tokens.sft import SftDataset

# On a GPU, lengths of packed rows are multiples of this, so that kernels and the allocator meet few shapes.
GPU_MULTIPLE = 1024

Example = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class MicroBatch:
    """tokens, labels int64 [sequences, positions]; weights float32 alike: each token's share of the step's loss."""

    tokens: Tensor
    labels: Tensor
    weights: Tensor
    segments: Segments | None = None
    """Of a packed row (sequences is 1); None: every sequence is one text."""

    def to(self, device: torch.device) -> MicroBatch:
        if device.type == "cpu":
            return self

        def send(x: Tensor) -> Tensor:
            return x.pin_memory().to(device, non_blocking=True)

        segments = self.segments
        if segments is not None:
            segments = replace(segments, boundaries=send(segments.boundaries), slots=send(segments.slots))
        return MicroBatch(send(self.tokens), send(self.labels), send(self.weights), segments)


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step on this rank; the weights of all ranks' micro-batches sum to 1."""

    micro: list[MicroBatch]
    tokens: int
    """Tokens of the step over all ranks, padding not counted."""


class StepData(Protocol):
    """Batches by optimizer step, counted from 1."""

    def step(self, step: int) -> StepBatch: ...

    def describe(self, step: int) -> list[dict[str, Any]]:
        """What the sequences of a step (all ranks') were made of, for a person who looks for a bad document."""
        ...


def _my_samples(step: int, batch: int, micro: int, ranks: Ranks) -> Iterator[range]:
    share = batch // ranks.data_size
    first = samples_of_step(step, batch).start + ranks.data * share
    for start in range(first, first + share, micro):
        yield range(start, min(start + micro, first + share))


class PretrainData:
    """Consecutive samples of a blend."""

    def __init__(self, blend: Blend, batch: int, micro: int, ranks: Ranks) -> None:
        self.blend, self.batch, self.micro, self.ranks = blend, batch, micro, ranks

    def step(self, step: int) -> StepBatch:
        micro = []
        for samples in _my_samples(step, self.batch, self.micro, self.ranks):
            ids = torch.from_numpy(np.stack([self.blend[i] for i in samples]))  # [sequences, context + 1]
            tokens, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
            micro.append(MicroBatch(tokens, labels, torch.full(tokens.shape, 1.0 / (self.batch * tokens.shape[1]))))
        return StepBatch(micro, self.batch * tokens.shape[1])

    def describe(self, step: int) -> list[dict[str, Any]]:
        from mixtures.blend.samples import read_sample

        samples = [read_sample(self.blend, number) for number in samples_of_step(step, self.batch)]
        return [
            {"source": sample.source, "documents": [asdict(part) for part in sample.stretches]} for sample in samples
        ]


class SftData:
    """Examples of an SFT set, shuffled anew each epoch; those of a step are packed into rows.

    A row holds at most `micro` x `context` tokens and is a micro-batch of one sequence. The rows depend on the number
    of data-parallel ranks; the examples, and what each token weighs, do not.
    """

    def __init__(self, dataset: SftDataset, batch: int, micro: int, context: int, seed: int, ranks: Ranks) -> None:
        """`dataset` cut to `context` tokens; `batch` examples a step."""
        self.dataset, self.batch, self.seed, self.ranks = dataset, batch, seed, ranks
        self.row_tokens = micro * context
        # Padding is a segment of its own, hence no longer than the positions that the model knows.
        self.multiple = min(GPU_MULTIPLE, context) if ranks.device.type == "cuda" else 1
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def example(self, sample: int) -> int:
        """Sample 0, 1, ... of training -> row of the set; every epoch is a permutation, drawn from seed and epoch."""
        epoch, place = divmod(sample, len(self.dataset))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, shuffled(len(self.dataset), "sft", self.seed, epoch)
        return int(self._order[place])

    def step(self, step: int) -> StepBatch:
        # Every rank reads the whole step: rows are made of all its examples, and the loss is a mean over the loss
        # tokens of all ranks.
        examples = [self.dataset[self.example(i)] for i in samples_of_step(step, self.batch)]
        lengths = [len(mask) for _, mask in examples]
        loss_tokens = max(1, sum(int(mask.sum()) for _, mask in examples))
        rows = pack(lengths, self.row_tokens, self.ranks.data_size)
        mine = rows[self.ranks.data :: self.ranks.data_size]
        return StepBatch([self._row([examples[i] for i in row], loss_tokens) for row in mine], sum(lengths))

    def _row(self, examples: Sequence[Example], loss_tokens: int) -> MicroBatch:
        lengths = [len(mask) for _, mask in examples]
        added = padding(sum(lengths), self.multiple, self.row_tokens)
        nothing = np.zeros(added, dtype=np.int64)  # carries no loss and is seen by no example: any id will do
        tokens = np.concatenate([*(ids[:-1] for ids, _ in examples), nothing])
        labels = np.concatenate([*(ids[1:] for ids, _ in examples), nothing])
        weights = np.concatenate([*(mask for _, mask in examples), nothing]).astype(np.float32) / loss_tokens
        segments = Segments.of([*lengths, added] if added else lengths)
        return MicroBatch(_one_row(tokens), _one_row(labels), _one_row(weights), segments)

    def describe(self, step: int) -> list[dict[str, Any]]:
        return [{"example": self.example(number)} for number in samples_of_step(step, self.batch)]


def _one_row(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values)[None]
