"""Attention over trees, in blocks of queries, against a softmax over ancestors in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ray_eval.models.tree_attention import QUERIES, as_numbers, attend, tree_mask

HEAD_DIM = 8


def reference(query: Tensor, key: Tensor, value: Tensor, sees: Tensor) -> Tensor:
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, 1).double() for part in (key, value))
    scores = query.double() @ key.transpose(-1, -2) / HEAD_DIM**0.5
    return scores.masked_fill(~sees, -torch.inf).softmax(-1) @ value


def heads(rows: int, length: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(length)
    every = torch.randn(rows, length, queries + 2 * keys, HEAD_DIM, generator=draw).transpose(1, 2)
    query, key, value = every.split([queries, keys, keys], dim=1)
    return query, key, value


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """The token before each, depth first, -1 for none: runs of tokens, each behind one that it continues."""
    before = [-1]
    for _ in range(draw(st.integers(1, 6))):
        before += range(len(before) - 1, len(before) - 1 + draw(st.integers(0, 2 * QUERIES)))
        before.append(draw(st.sampled_from(ancestors(before, len(before) - 1))))
    return before


def ancestors(before: list[int], token: int) -> list[int]:
    """Of a token, with itself."""
    found = [token]
    while before[found[-1]] >= 0:
        found.append(before[found[-1]])
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=3), st.sampled_from([(2, 2), (4, 1)]))
def test_a_token_sees_its_ancestors_and_nothing_else(rows: list[list[int]], counts: tuple[int, int]) -> None:
    length = max(map(len, rows))
    sees = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    for row, before in enumerate(rows):
        for token in range(len(before)):
            sees[row, token, ancestors(before, token)] = True
    places = torch.arange(1, length + 1)
    ends = torch.stack([(seen * places[:, None]).amax(0) for seen in sees])  # behind the last that sees it
    for row, before in enumerate(rows):
        ends[row, len(before) :] = 0
    given = heads(len(rows), length, *counts)
    found = attend(*given, as_numbers(tree_mask(ends, "padded"), torch.float32))
    torch.testing.assert_close(found.double(), reference(*given, sees[:, None]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, QUERIES, QUERIES + 1, 3 * QUERIES, 200])
def test_without_branches_it_is_causal(length: int) -> None:
    given = heads(2, length, 4, 2)
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    torch.testing.assert_close(attend(*given, None).double(), reference(*given, sees), rtol=0, atol=1e-5)
