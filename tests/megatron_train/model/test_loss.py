"""The chunked cross-entropy and its gradients against PyTorch's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.layout import PROJECT_ROOT
from megatron_train.model.loss import linear_cross_entropy
from megatron_train.ranks import parallel
from megatron_train.ranks.parallel import Ranks


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    yield parallel.initialise(1, 1)
    parallel.shut_down()


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    vocab=st.integers(2, 50),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 99),
    big=st.booleans(),
)
def test_loss_and_gradients_equal_pytorch(
    ranks: Ranks, tokens: int, vocab: int, chunk: int, seed: int, big: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, 6, generator=draw)
    weight = torch.randn(vocab, 6, generator=draw)
    if big:  # logits of hundreds: softmax must not overflow; of eighths, so that fp32 and fp64 have the same ones
        hidden, weight = (50 * hidden).round(), (8 * weight).round() / 8
    labels = torch.randint(0, vocab, (tokens,), generator=draw)
    weights = torch.rand(tokens, generator=draw) * torch.randint(0, 2, (tokens,), generator=draw)
    ours, theirs = (
        [hidden.clone().requires_grad_(), weight.clone().requires_grad_()],
        [hidden.double().requires_grad_(), weight.double().requires_grad_()],
    )
    loss = linear_cross_entropy(ours[0], ours[1], labels, weights, ranks.tensor_group, chunk)
    reference = (F.cross_entropy(theirs[0] @ theirs[1].t(), labels, reduction="none") * weights).sum()
    (loss * 3).backward()
    (reference * 3).backward()
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-5)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=2e-4 if big else 1e-5)


def test_weights_are_shares_of_one_loss(ranks: Ranks) -> None:
    """A masked token changes neither loss nor gradient."""
    hidden = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(9, 4)
    labels = torch.tensor([1, 2, 3, 4, 5])
    weights = torch.tensor([0.5, 0.0, 0.25, 0.25, 0.0])
    loss = linear_cross_entropy(hidden, weight, labels, weights, ranks.tensor_group)
    loss.backward()
    assert hidden.grad is not None
    assert torch.all(hidden.grad[[1, 4]] == 0) and torch.all(hidden.grad[[0, 2, 3]].abs().sum(1) > 0)
    with torch.no_grad():
        same = linear_cross_entropy(hidden, weight, torch.tensor([1, 8, 3, 4, 0]), weights, ranks.tensor_group)
    assert torch.equal(loss, same)


def test_gradients_equal_those_of_megatrons_loss(ranks: Ranks) -> None:
    """vocab_parallel_cross_entropy on whole fp32 logits, per-token weights applied outside."""
    from megatron.core.tensor_parallel import vocab_parallel_cross_entropy

    draw = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(33, 16, generator=draw), torch.randn(101, 16, generator=draw)
    labels, weights = torch.randint(0, 101, (33,), generator=draw), torch.rand(33, generator=draw)
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    theirs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_cross_entropy(ours[0], ours[1], labels, weights, ranks.tensor_group, chunk=8)
    reference = (vocab_parallel_cross_entropy(theirs[0] @ theirs[1].t(), labels) * weights).sum()
    loss.backward()
    reference.backward()
    torch.testing.assert_close(loss, reference, rtol=1e-6, atol=1e-6)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-6)


PEAK = """
import resource, sys
import torch
from megatron_train.ranks import parallel
from megatron_train.model.loss import linear_cross_entropy

torch.set_num_threads(1)
group = parallel.initialise(1, 1).tensor_group
tokens, vocab, hidden = int(sys.argv[1]), 100_864, 32

def loss(tokens):
    states = torch.randn(tokens, hidden, requires_grad=True)
    weight = torch.randn(vocab, hidden, requires_grad=True)
    labels = torch.randint(0, vocab, (tokens,))
    linear_cross_entropy(states, weight, labels, torch.full((tokens,), 1 / tokens), group, chunk=256).backward()

loss(256)  # what libraries allocate once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss(tokens)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_sequence() -> None:
    """At 100,864 entries, 4,096 tokens have 1.65 GB of fp32 logits; pieces of 256 tokens have 0.1 GB at any length."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    growth_mb = {}
    for tokens in (1024, 2048, 4096):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(tokens)],
            cwd=PROJECT_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        growth_mb[tokens] = int(done.stdout) / 1024
    # States, their gradient and labels take 2 MB at the longest; the rest is the allocator's slack.
    assert growth_mb[4096] - growth_mb[1024] < 100, growth_mb
    assert max(growth_mb.values()) < 400, growth_mb
