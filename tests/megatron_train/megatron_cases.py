"""What the tests of MegatronAdamW do on each rank, and their independent reference.

Functions named `rank_...` run in processes of their own (`on_ranks`), where they assert what they are about.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
import torch.multiprocessing
from megatron_on_cpu import MegatronAdamWOnCpu, megatron_on_cpu
from torch import Tensor, nn

from configs.schema import ModelShape, Optimizer
from megatron_train.model.loss import linear_cross_entropy
from megatron_train.model.model import LanguageModel, build_model
from megatron_train.optimizer import megatron_adamw as megatron_optimizer
from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.optimizer.megatron_adamw import MegatronAdamW
from megatron_train.ranks import parallel
from megatron_train.ranks.parallel import Ranks

ONE = Ranks(0, 1, 0, 1, 0, 1, torch.device("cpu"), cast("torch.distributed.ProcessGroup", None), None)  # type: ignore[arg-type]
"""A process of its own: what a run on one CPU sees."""

SHAPE = ModelShape(layers=2, hidden=24, heads=4, head_dim=8, ffn_hidden=64, vocab=320, context_tokens=32)
CONFIG = Optimizer(lr=1e-2, weight_decay=0.1, clip_norm=0.5, beta1=0.8, beta2=0.9)
Gradients = dict[str, Tensor]


def make_model(ranks: Ranks, shape: ModelShape = SHAPE) -> LanguageModel:
    return build_model(shape, tensor_parallel=ranks.tensor_size, device=ranks.device, seed=1)


def make(
    model: LanguageModel,
    ranks: Ranks,
    dtype: torch.dtype,
    config: Optimizer = CONFIG,
    bucket: int | None = None,
    **options: bool,
) -> MegatronAdamW:
    """`bucket`: parameters after which megatron begins another bucket (default: megatron's, 40 million)."""
    ddp_config = functools.partial(megatron_optimizer.DistributedDataParallelConfig, bucket_size=bucket)
    with mock.patch.object(megatron_optimizer, "DistributedDataParallelConfig", ddp_config), megatron_on_cpu():
        return MegatronAdamWOnCpu(model, config, ranks, dtype, **options)


class Reference:
    """torch.optim.AdamW on fp32 copies of a model's weights, one by one."""

    def __init__(self, model: nn.Module, config: Optimizer) -> None:
        self.weights = {name: nn.Parameter(p.detach().float().clone()) for name, p in model.named_parameters()}
        self.config = config
        groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (config.weight_decay, 0.0)]
        for name, weight in self.weights.items():
            decayed = True
            if name.endswith("norm.weight"):
                decayed = config.decay_norms
            elif name == "embedding.word_embeddings.weight":
                decayed = config.decay_embeddings
            groups[0 if decayed else 1]["params"].append(weight)
        betas = (config.beta1, config.beta2)
        self.adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=1.0, betas=betas, eps=config.eps)

    def step(self, gradients: Mapping[str, Tensor], lr: float) -> Tensor:
        for name, weight in self.weights.items():
            weight.grad = gradients[name].float()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.config.clip_norm or 1e9)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        return norm


def draw(model: nn.Module, seed: int) -> Gradients:
    """Gradients that bf16 can hold, so that they reach the optimizer unrounded."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(p.shape, generator=generator) * 0.1).bfloat16().float()
        for name, p in model.named_parameters()
    }


def feed(optimizer: Any, model: nn.Module, gradients: Gradients, *, last: bool) -> None:
    """A backward pass whose gradients are `gradients`."""
    loss = sum((p.float() * gradients[name]).sum() for name, p in model.named_parameters())
    optimizer.backward(loss, last=last)


def state(optimizer: Any) -> dict[tuple[str, str], Tensor]:
    return {(kind, slot.name): values.clone() for kind, slot, values in optimizer.tensors()}


def same_bits(left: Mapping[Any, Tensor], right: Mapping[Any, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(left[key].view(torch.int32), right[key].view(torch.int32)) for key in left
    )


def learn(optimizer: Any, model: LanguageModel, ranks: Ranks, steps: int) -> list[tuple[float, float]]:
    """(loss, gradient norm) of steps on two micro-batches of random text, always the same, through the real loss."""
    texts = torch.randint(SHAPE.vocab, (2, 2, 17), generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for last, text in zip((False, True), texts, strict=True):
            hidden = model.hidden(text[:, :-1].contiguous()).flatten(0, 1)
            labels, weights = text[:, 1:].t().reshape(-1), torch.full((32,), 1 / 64)
            loss = linear_cross_entropy(hidden, model.output_weight, labels, weights, ranks.tensor_group)
            optimizer.backward(loss, last=last)
            total += loss.item()
        seen.append((total, optimizer.step(1e-2).item()))
    return seen


def follows_reference(ranks: Ranks, dtype: torch.dtype, config: Optimizer, bucket: int | None = None) -> MegatronAdamW:
    """Five steps of two or one micro-batches on each data-parallel rank, against AdamW on the sum of all gradients."""
    model = make_model(ranks)
    reference = Reference(model, config)
    optimizer = make(model, ranks, dtype, config, bucket)
    for step in range(1, 6):
        count = 1 + step % 2
        given = [[draw(model, 100 * step + 10 * rank + m) for m in range(count)] for rank in range(ranks.data_size)]
        optimizer.zero_grad()
        for micro, gradients in enumerate(given[ranks.data]):
            last = micro == count - 1
            feed(optimizer, model, gradients, last=last)
            # megatron learns the order of gradients in the first step; from then on they travel during the last pass.
            travelling = [group.grad_reduce_handle is not None for group in optimizer.parallel.bucket_groups]
            assert all(travelling) if last and step > 1 else not any(travelling)
        norm = optimizer.step(CONFIG.lr / step)
        flat = [gradients for rank in given for gradients in rank]
        total = {name: torch.stack([gradients[name] for gradients in flat]).sum(0) for name in flat[0]}
        torch.testing.assert_close(norm, reference.step(total, CONFIG.lr / step), rtol=1e-5, atol=0)
        masters = {slot.name: values for kind, slot, values in optimizer.tensors() if kind == "weight"}
        for name, weight in model.named_parameters():
            torch.testing.assert_close(masters[name], reference.weights[name].data, rtol=0, atol=1e-6)
            assert weight.dtype == dtype and torch.equal(weight.data, masters[name].to(dtype))
    return optimizer


def round_trip(ranks: Ranks, dtype: torch.dtype) -> None:
    """FlatAdamW's state into MegatronAdamW and back, and the next step from either."""
    models = [make_model(ranks) for _ in range(3)]
    source, back = (FlatAdamW(model, CONFIG, ranks, dtype) for model in (models[0], models[2]))
    optimizer = make(models[1], ranks, dtype, bucket=2000)
    for step in (1, 2):
        source.zero_grad()
        feed(source, models[0], draw(models[0], step), last=True)
        source.step(1e-2)
    source.exp_avg[:3] = torch.tensor([-0.0, 1e-45, -1e-40])  # a sum of floats would lose the sign of the first
    for giver, taker in ((source, optimizer), (optimizer, back)):
        slots = {slot.name: slot for slot in taker.slots}
        for kind, slot, values in giver.tensors():
            taker.restore(kind, slots[slot.name], values)
        taker.restored(2)
        assert same_bits(state(taker), state(source))
    for model in models[1:]:
        for mine, theirs in zip(model.parameters(), models[0].parameters(), strict=True):
            assert torch.equal(mine, theirs)
    for other, model in ((source, models[0]), (optimizer, models[1]), (back, models[2])):
        other.zero_grad()
        feed(other, model, draw(model, 3), last=True)
        other.step(1e-2)
    after = state(source)
    assert same_bits(state(back), after)
    for key, values in state(optimizer).items():
        torch.testing.assert_close(values, after[key], rtol=0, atol=1e-6)


def stays_after_divergence(ranks: Ranks, dtype: torch.dtype, value: float) -> None:
    """One number that is not finite, on the last rank only: nothing moves on any, then or later."""
    model = make_model(ranks)
    optimizer = make(model, ranks, dtype, bucket=2000)
    states, weights, norms = [], [], []
    for step in range(4):
        gradients = draw(model, step)
        if step == 1 and ranks.rank == ranks.world - 1:
            gradients["decoder.final_layernorm.weight"][5] = value
        optimizer.zero_grad()
        feed(optimizer, model, gradients, last=True)
        norms.append(optimizer.step(1e-2).isfinite().item())
        assert bool(optimizer.diverged) == (step >= 1)
        states.append(state(optimizer))
        weights.append([p.detach().clone() for p in model.parameters()])
    assert norms == [True, False, True, True]
    assert all(same_bits(states[0], later) for later in states[1:])
    assert all(torch.equal(a, b) for later in weights[1:] for a, b in zip(weights[0], later, strict=True))


def rank_of_two_data(adam: str) -> None:
    with joined(tensor_parallel=1) as ranks:
        assert ranks.data_size == 2
        for dtype in (torch.float32, torch.bfloat16):
            optimizer = follows_reference(ranks, dtype, CONFIG, bucket=2000)
            assert type(optimizer.adam).__module__.split(".")[0] == adam
            assert len(optimizer.parallel.bucket_groups) > 5
            kept = sum(slot.values["exp_avg"].numel() for slot in optimizer.slots if slot.values)
            every = sum(slot.parameter.numel() for slot in optimizer.slots)
            assert 0.4 < kept / every < 0.6
        # One bucket: the embedding, alone in its group without decay, is kept by the second rank alone.
        optimizer = follows_reference(ranks, torch.bfloat16, CONFIG.model_copy(update={"decay_norms": True}))
        assert len(optimizer.adam.param_groups) == 1 + ranks.rank
        round_trip(ranks, torch.bfloat16)
        stays_after_divergence(ranks, torch.bfloat16, float("inf"))


def rank_of_two_tensor() -> None:
    """Gains, whose gradients both ranks hold, count once in the norm; matrices count with both their parts."""
    with joined(tensor_parallel=2) as ranks:
        for dtype in (torch.float32, torch.bfloat16):
            models = make_model(ranks), make_model(ranks)
            optimizer = make(models[0], ranks, dtype)
            other = FlatAdamW(models[1], CONFIG, ranks, dtype)
            for step in range(1, 4):
                given = [draw(models[0], 10 * step + rank) for rank in (0, 1)]
                gains = [name for name, p in models[0].named_parameters() if p.dim() == 1]
                given[1] |= {name: given[0][name] for name in gains}
                square = sum(g.double().square().sum() for g in given[0].values())
                square += sum(g.double().square().sum() for name, g in given[1].items() if name not in gains)
                for each, model in ((optimizer, models[0]), (other, models[1])):
                    each.zero_grad()
                    feed(each, model, given[ranks.tensor], last=True)
                    torch.testing.assert_close(each.step(1e-2).double(), square.sqrt(), rtol=1e-5, atol=0)
            expected = state(other)
            for key, values in state(optimizer).items():
                torch.testing.assert_close(values, expected[key], rtol=0, atol=1e-6)
        stays_after_divergence(ranks, torch.bfloat16, float("nan"))


def rank_with_apex() -> None:
    """Learning with Apex's Adam and its fused weight gradients (stand-ins), against FlatAdamW without them."""
    import fused_weight_gradient_mlp_cuda as kernel

    with joined(tensor_parallel=1) as ranks:
        for tied in (True, False):
            for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
                shape = SHAPE.model_copy(update={"tied_embeddings": tied})
                models = make_model(ranks, shape), make_model(ranks, shape)
                optimizer = make(models[0], ranks, dtype)
                assert optimizer.describe() == (
                    "megatron's distributed optimizer with apex.optimizers.FusedAdam, weight gradients added up by Apex"
                )
                kernel.calls = 0
                with megatron_on_cpu():
                    mine = learn(optimizer, models[0], ranks, steps=4)
                assert kernel.calls == 4 * 2 * 4 * SHAPE.layers  # steps, micro-batches, matrices of a layer, layers
                theirs = learn(FlatAdamW(models[1], CONFIG, ranks, dtype), models[1], ranks, steps=4)
                assert kernel.calls == 4 * 2 * 4 * SHAPE.layers, "FlatAdamW has no buckets to add to"
                torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), rtol=tolerance, atol=0)
                assert theirs[0][0] - theirs[-1][0] > 0.1, "the losses must move"
        plain = make_model(ranks)
        learn(make(plain, ranks, torch.float32, compiled=True), plain, ranks, steps=1)
        assert kernel.calls == 4 * 2 * 4 * SHAPE.layers, "compiled blocks leave the gradients to the compiler"


@contextmanager
def joined(tensor_parallel: int) -> Iterator[Ranks]:
    try:
        yield parallel.initialise(tensor_parallel, 2)
    finally:
        parallel.shut_down()


def on_ranks(processes: int, function: Callable[..., None], *arguments: Any) -> None:
    """Run `function` in this many processes as torchrun would; a failure in one of them is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_start, (processes, port, function, arguments), nprocs=processes)


def _start(rank: int, world: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    function(*arguments)
