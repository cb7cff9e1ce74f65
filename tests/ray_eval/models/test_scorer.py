"""Batches, units and near-ties: what is computed, and that neither how it is cut nor shared decides anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_exports import random_export

from configs.errors import ResourceError
from configs.load import BENCHMARKS, load_benchmark
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import load_examples
from ray_eval.models import output_layer
from ray_eval.models import scorer as scorer_module
from ray_eval.models.batches import PADDED_SHARE, TOKENS_IN_A_BATCH, assemble, batch_rows
from ray_eval.models.llama import Llama
from ray_eval.models.scorer import NEAR_TIE_NATS, ForwardCounts, Scorer, near_ties
from ray_eval.models.tree_attention import Heads, probe_form, probe_inputs, usable_forms
from ray_eval.plans.encoding import Scored
from ray_eval.plans.plan import Plan, compile_plan
from ray_eval.plans.trees import lay_out

FLEX_ON_A_CPU = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return Llama(random_export(tmp_path_factory.mktemp("export"), tokenizer))


@pytest.fixture(scope="module")
def plans(tokenizer: Tokenizer, benchmark_root: Path) -> tuple[Plan, Plan]:
    """The same questions with shared prefixes, and with a row for each sequence."""
    pairs = [(spec, load_examples(spec, benchmark_root)) for spec in map(load_benchmark, BENCHMARKS)]
    plan = compile_plan(pairs, tokenizer, 256)
    return plan, plan.unshared()


def scores(plan: Plan, model: Llama) -> tuple[np.ndarray, ForwardCounts, int]:
    """Of every sequence, without settling near-ties; what it took, and in how many units."""
    scorer = Scorer(plan, places_at_once=model.places_at_once)
    sums, counts = np.full(plan.num_sequences, np.nan), ForwardCounts()
    units = scorer.units(model)
    for unit in units:
        numbers = scorer.sequences(unit)
        assert np.isnan(sums[numbers]).all()
        sums[numbers], done = scorer.score(model, unit)
        counts += done
    assert np.isfinite(sums).all()
    return sums, counts, len(units)


def test_shared_prefixes_change_the_work_and_not_the_scores(plans: tuple[Plan, Plan], model: Llama) -> None:
    shared, alone = (scores(plan, model) for plan in plans)
    assert np.abs(shared[0] - alone[0]).max() < 1e-4
    assert shared[1].tokens == len(plans[0].rows.tokens) < plans[0].least_tokens
    assert alone[1].tokens == len(plans[1].rows.tokens) > plans[0].least_tokens
    assert shared[1].heads == len(plans[0].rows.heads) < alone[1].heads


def test_scores_do_not_depend_on_the_units(
    plans: tuple[Plan, Plan], model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, counts, num_units = scores(plans[0], model)
    monkeypatch.setattr(scorer_module, "WORK_IN_A_UNIT", {"cpu": 1.0})
    cut, same, num_cut = scores(plans[0], model)
    assert np.array_equal(whole, cut) and counts == same
    assert num_units == 1 < num_cut == len(batch_rows(plans[0].rows, "cpu"))


def test_places_of_several_batches_go_through_a_large_output_layer_together(
    plans: tuple[Plan, Plan], model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, counts, _ = scores(plans[0], model)
    layer, passes = output_layer.log_probabilities, []

    def counted(states: torch.Tensor, *given: Any) -> torch.Tensor:
        passes.append(len(states))
        return layer(states, *given)

    monkeypatch.setattr(output_layer, "log_probabilities", counted)
    monkeypatch.setattr(output_layer, "CACHED_BYTES", 0)
    monkeypatch.setitem(output_layer.PLACES, "cpu", 64)
    together, same, _ = scores(plans[0], model)
    assert np.abs(together - alone).max() < 1e-4 and counts == same and sum(passes) == counts.heads
    num_batches = len(batch_rows(plans[0].rows, "cpu"))
    assert all(places >= 64 for places in passes[:-1]) and 1 < len(passes) < num_batches / 2


@FLEX_ON_A_CPU
def test_both_forms_of_attention_agree(plans: tuple[Plan, Plan], model: Llama) -> None:
    """Rows one after another with a block mask (uncompiled on a CPU), and padded with a dense one."""
    rows = plans[0].rows
    padded, flat = np.zeros((2, plans[0].num_sequences))
    scorer = Scorer(plans[0])
    for unit in scorer.units(model):
        padded[scorer.sequences(unit)], _ = scorer.score(model, unit)
    chosen = np.flatnonzero(rows.branched)[:40]
    batch = assemble(rows, chosen, "cpu", "flat")
    assert batch.tokens.shape == (1, rows.lengths[chosen].sum())
    np.add.at(flat, batch.target_sequence, model.log_probabilities([batch]).double().numpy())
    compared = np.unique(batch.target_sequence)
    assert len(compared) > 80 and np.abs(flat - padded)[compared].max() < 1e-4


@FLEX_ON_A_CPU
@pytest.mark.parametrize(("shared", "branch", "rows"), [(64, 24, 5), (300, 3, 3), (1, 1, 2)])
def test_both_forms_agree_on_the_trees_of_the_probe(shared: int, branch: int, rows: int) -> None:
    heads = Heads(4, 2, 16, torch.float32, torch.device("cpu"))
    every, ends = probe_inputs(heads, shared, branch, rows)
    padded, flat = (probe_form(form, heads, every, ends)[0] for form in ("padded", "flat"))
    assert padded.shape == (rows, 4, shared + 4 * branch, 16)
    assert (padded - flat).abs().max() < 1e-5
    assert usable_forms(heads)[0] == ("padded",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "changes", [{}, {"num_key_value_heads": 4, "num_attention_heads": 8, "tie_word_embeddings": False}]
)
def test_devices_that_share_a_model_score_like_one(
    plans: tuple[Plan, Plan],
    tokenizer: Tokenizer,
    tmp_path: Path,
    changes: dict[str, object],
    count: int,
    dtype: torch.dtype,
) -> None:
    export = random_export(tmp_path, tokenizer, **changes)
    one, several = (Llama(export, dtype=dtype, devices=["cpu"] * n) for n in (1, count))
    expected, counts, _ = scores(plans[0], one)
    found, same, _ = scores(plans[0], several)
    assert len(several.shards) == count and counts == same
    assert sum(len(shard.entries) for shard in several.shards) == tokenizer.vocab_size
    size = np.abs(expected).max()
    assert np.abs(found - expected).max() < (1e-6 if dtype == torch.float32 else 0.03) * size


def test_devices_that_cannot_share_a_model_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="4 heads, 4 of keys, an MLP of 64: 3 devices cannot share them equally"):
        Llama(random_export(tmp_path, tokenizer), devices=["cpu"] * 3)


def test_flat_batches_hold_every_row_once() -> None:
    rows = lay_out([Scored(np.full(300, i, np.int32), 1, truncated=False) for i in range(99)])
    batches = batch_rows(rows, "cpu", "flat")
    assert np.concatenate(batches).tolist() == list(range(99))
    assert (
        all(rows.lengths[numbers].sum() <= TOKENS_IN_A_BATCH["cpu"] + 300 for numbers in batches) and len(batches) > 5
    )


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(2, 300), min_size=1, max_size=300))
def test_batches_hold_every_row_once_within_budget_and_padding(lengths: list[int]) -> None:
    rows = lay_out([Scored(np.full(n, i, np.int32), 1, truncated=False) for i, n in enumerate(lengths)], share=False)
    batches = batch_rows(rows, "cpu")
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for numbers in batches:
        padded = rows.lengths[numbers].max() * len(numbers)
        assert padded <= TOKENS_IN_A_BATCH["cpu"] or len(numbers) == 1
        assert padded - rows.lengths[numbers].sum() <= PADDED_SHARE * padded


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_near_ties_by_definition(plans: tuple[Plan, Plan], data: st.DataObject) -> None:
    plan = plans[0]
    levels = data.draw(st.lists(st.floats(-3, 0), min_size=4, max_size=40))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    sums = rng.choice(levels, plan.num_sequences) + rng.normal(0, NEAR_TIE_NATS, plan.num_sequences) - 1
    examples, sequences = near_ties(plan, sums)
    wanted = []
    for e in range(plan.num_examples):
        mine = range(*plan.candidate_offsets[e : e + 2])
        for lengths in (np.ones_like(plan.num_tokens), plan.num_tokens, plan.num_chars, plan.num_bytes):
            ranked = sorted(mine, key=lambda c: -sums[plan.sequence[c]] / lengths[c])
            first, others = ranked[0], [c for c in ranked if plan.sequence[c] != plan.sequence[ranked[0]]]
            if others:
                best, second = (sums[plan.sequence[c]] / lengths[c] for c in (first, others[0]))
                if (best - second) * lengths[first] < NEAR_TIE_NATS:
                    wanted.append(e)
                    break
    assert examples.tolist() == wanted
    assert set(sequences.tolist()) == {
        int(plan.sequence[c]) for e in wanted for c in range(*plan.candidate_offsets[e : e + 2])
    }


def test_near_ties_are_scored_alone(plans: tuple[Plan, Plan], model: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every example a near-tie the scores become those of unshared rows, and the work is counted."""
    monkeypatch.setattr(scorer_module, "NEAR_TIE_NATS", float("inf"))
    shared, alone = plans
    exact, _, _ = scores(alone, model)
    sums = scores(shared, model)[0] + 0.5
    counts = Scorer(shared).settle(model, sums)
    several = [e for e in range(shared.num_examples) if len(set(shared.sequence[_candidates(shared, e)])) > 1]
    assert counts.near_ties == len(several) > 40
    settled = np.unique(np.concatenate([shared.sequence[_candidates(shared, e)] for e in several]))
    assert np.abs(sums[settled] - exact[settled]).max() < 1e-5
    rest = np.setdiff1d(np.arange(shared.num_sequences), settled)
    assert np.abs(sums[rest] - 0.5 - exact[rest]).max() < 1e-4
    assert counts.tokens == sum(len(s.ids) - 1 for s in shared.rows.sequences(settled))


def _candidates(plan: Plan, example: int) -> slice:
    return slice(*plan.candidate_offsets[example : example + 2].tolist())
