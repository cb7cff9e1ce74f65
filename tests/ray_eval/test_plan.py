"""Encoding against lm-evaluation-harness's own code; rows against their definition; the plan's identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ArtifactError
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import StudyScoring
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import DELIMITER, Example, load_examples
from ray_eval.models.batches import batch_rows
from ray_eval.plans.encoding import Encodings, Scored
from ray_eval.plans.plan import Plan, compile_plan, load_plan, save_plan
from ray_eval.plans.trees import ROW_TOKENS, TokenRows, concatenate, lay_out


class Merging:
    """A tokenizer without a pre-tokenizer: tokens span word boundaries, so they can span the join."""

    eod = 0
    sha256 = "merging"
    bos_policy = "none"
    entries = ("a b", " b", "ab", "a", "b", " ", "c ", "c")

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            entry = next(e for e in self.entries if text.startswith(e))
            ids.append(1 + self.entries.index(entry))
            text = text[len(entry) :]
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


def example(*candidates: str, contexts: Sequence[str], unconditional: str | None = None) -> Example:
    return Example("test", 0, tuple(contexts), candidates, 0, unconditional)


def harness_ids(
    tokenizer: Tokenizer | Merging, context: str, continuation: str, max_length: int
) -> tuple[list[int], int]:
    """Tokens and number of targets by the harness's code (its model class without its model)."""
    from lm_eval.api.model import TemplateLM

    class Harness(TemplateLM):
        backend = "causal"

        def tok_encode(self, string: str, **_: object) -> list[int]:  # type: ignore[override]
            return tokenizer.encode(string)

    Harness.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    if context:
        before, after = Harness()._encode_pair(context, continuation)  # type: ignore[abstract]
    else:
        before, after = [tokenizer.eod], tokenizer.encode(continuation)
    return (before + after)[-(max_length + 1) :], len(after)


pieces = st.sampled_from(["a", "b", " ", "c", "\n", "é", "The", " said", "."])
text = st.lists(pieces, max_size=12).map("".join)


@settings(max_examples=200, deadline=None)
@given(context=text, candidate=text, max_length=st.integers(1, 12))
def test_encoding_is_the_harness_rule(tokenizer: Tokenizer, context: str, candidate: str, max_length: int) -> None:
    scored = Encodings(tokenizer, max_length, [example(candidate, contexts=[context])])(context, candidate)
    assert 1 <= scored.num_targets < len(scored.ids) <= max_length + 1
    if context and not context.strip():
        return  # the harness stops: nothing is left of the context once its spaces have moved
    ids, num_targets = harness_ids(tokenizer, context, DELIMITER + candidate, max_length)
    if 0 < num_targets <= max_length:
        assert (scored.ids.tolist(), scored.num_targets) == (ids, num_targets)


@settings(max_examples=200, deadline=None)
@given(context=st.text("abc ", min_size=1, max_size=8), candidate=st.text("abc ", max_size=6))
def test_encoding_is_the_harness_rule_where_tokens_span_the_join(context: str, candidate: str) -> None:
    tokenizer = Merging()
    if not context.strip():
        return
    scored = Encodings(tokenizer, 64, [example(candidate, contexts=[context])])(context, candidate)
    ids, num_targets = harness_ids(tokenizer, context, DELIMITER + candidate, 64)
    if num_targets:
        assert (scored.ids.tolist(), scored.num_targets) == (ids, num_targets)
    else:  # the harness stops here; the text is scored from the last token that belongs to the context alone
        whole = tokenizer.encode(context + DELIMITER + candidate)
        assert scored.ids[-len(whole) :].tolist() == whole
        assert scored.num_targets >= 1


def test_a_token_over_the_whole_join_is_scored_not_dropped() -> None:
    scored = Encodings(Merging(), 64, [example("b", contexts=["a"])])("a", "b")  # "a" + " b" is one token, "a b"
    assert (scored.ids.tolist(), scored.num_targets, scored.truncated) == ([0, 1], 1, False)


def test_truncation_keeps_the_end_and_is_flagged(tokenizer: Tokenizer) -> None:
    context, candidate = "The boat left. " * 20, "It came back."
    encode = Encodings(tokenizer, 16, [example(candidate, contexts=[context, "The"])])
    long = encode(context, candidate)
    assert long.truncated and len(long.ids) == 17
    assert long.ids.tolist() == harness_ids(tokenizer, context, DELIMITER + candidate, 16)[0]
    short = Encodings(tokenizer, 64, [example(candidate, contexts=["The"])])("The", candidate)
    assert not short.truncated
    endless = Encodings(tokenizer, 4, [example(candidate, contexts=["The"])])("The", candidate)
    assert endless.truncated and endless.num_targets == 4 and len(endless.ids) == 5


def scored(ids: Sequence[int], num_targets: int = 1) -> Scored:
    return Scored(np.array(ids, np.int32), num_targets, truncated=False)


# Few tokens, so that sequences share beginnings, are equal, or begin each other.
sequences = st.lists(
    st.lists(st.integers(1, 3), min_size=2, max_size=9).flatmap(
        lambda ids: st.tuples(st.just(tuple(ids)), st.integers(1, len(ids) - 1))
    ),
    min_size=1,
    max_size=12,
    unique=True,
).map(lambda pairs: [scored(*pair) for pair in pairs])


def predictions(rows: TokenRows) -> dict[int, list[tuple[list[int], int]]]:
    """Of each sequence, in order: the tokens that the place sees from which a target is predicted, and the target."""
    found: dict[int, list[tuple[list[int], int]]] = {}
    for r in range(len(rows.lengths)):
        start, stop = rows.token_offsets[r : r + 2]
        tokens, positions, ends = (array[start:stop] for array in (rows.tokens, rows.positions, rows.ends))
        heads = rows.heads[slice(*rows.head_offsets[r : r + 2])]
        assert len(set(heads.tolist())) == len(heads)
        used = set()
        for t in range(*rows.target_offsets[r : r + 2]):
            used.add(place := int(heads[rows.target_head[t]]))
            sees = [k for k in range(place + 1) if place < ends[k]]
            assert positions[sees].tolist() == list(range(len(sees)))  # as in a row of its own
            found.setdefault(int(rows.target_sequence[t]), []).append(
                (tokens[sees].tolist(), int(rows.target_token[t]))
            )
        assert used == set(heads.tolist())
    return found


def expected(asked: Sequence[Scored], first: int = 0) -> dict[int, list[tuple[list[int], int]]]:
    return {
        first + i: [(s.ids[:j].tolist(), int(s.ids[j])) for j in range(len(s.ids) - s.num_targets, len(s.ids))]
        for i, s in enumerate(asked)
    }


@settings(max_examples=300, deadline=None)
@given(groups=st.lists(sequences, min_size=1, max_size=3), share=st.booleans())
def test_rows_predict_what_each_sequence_would_alone(groups: list[list[Scored]], share: bool) -> None:
    parts, every, first = [], {}, 0
    for group in groups:
        parts.append(lay_out(group, first, share=share))
        every |= expected(group, first)
        first += len(group)
    rows = concatenate(parts)
    assert predictions(rows) == every
    for number, again in enumerate(rows.sequences(np.arange(first))):
        assert expected([again], number) == {number: every[number]}
    if share:
        assert len(rows.tokens) <= sum(len(s.ids) - 1 for group in groups for s in group)
    else:
        assert len(rows.lengths) == first and not rows.branched.any()


@settings(max_examples=100, deadline=None)
@given(asked=sequences)
def test_what_begins_alike_is_fed_once(asked: list[Scored]) -> None:
    """With four sequences this short sharing always pays: the rows are the trie of each first token."""
    asked = asked[:4]
    rows = lay_out(asked)
    prefixes = {tuple(s.ids[:j].tolist()) for s in asked for j in range(1, len(s.ids))}
    assert len(rows.tokens) == len(prefixes)
    assert len(rows.lengths) == len({int(s.ids[0]) for s in asked})


def test_rows_stay_short_enough_for_attention() -> None:
    rng = np.random.default_rng(0)
    passage = rng.integers(1, 99, 100).tolist()
    rows = lay_out([scored(passage + rng.integers(1, 99, 30).tolist()) for _ in range(60)])
    assert rows.lengths.max() <= ROW_TOKENS and rows.branched.all()
    assert len(rows.tokens) < 60 * 129 / 2
    long = list(range(100, 1000))
    assert len(lay_out([scored([*long, i, i], 2) for i in range(4)]).lengths) == 1  # 900 tokens are not fed four times
    alone = lay_out([scored(list(range(1, 2000)))])
    assert alone.lengths.tolist() == [1998] and not alone.branched.any()
    apart = lay_out([scored([1] + [i] * 300) for i in range(2, 9)])  # one token in common is not worth a long row
    assert len(apart.lengths) == 7


def small_plan(tokenizer: Tokenizer, root: Path, **choices: object) -> Plan:
    pairs = [(spec, load_examples(spec, root, StudyScoring(**choices))) for spec in map(load_benchmark, BENCHMARKS)]  # type: ignore[arg-type]
    return compile_plan(pairs, tokenizer, 256)


def test_one_token_labels_cost_one_head_and_no_tokens(tokenizer: Tokenizer) -> None:
    spec = load_benchmark("qnli")
    whole = tokenizer.encode("Water? a b")
    examples = [example("a", "b", contexts=["Water?"])]
    plan = compile_plan([(spec, examples)], tokenizer, 64)
    assert plan.rows.tokens.tolist() == whole[:-2] and plan.least_tokens == len(whole) - 2
    assert len(plan.rows.heads) == 1 and plan.num_tokens.tolist() == [1, 1] and plan.unconditional.tolist() == [-1, -1]


def test_the_hash_says_what_is_scored(tokenizer: Tokenizer, benchmark_root: Path, tmp_path: Path) -> None:
    plan = small_plan(tokenizer, benchmark_root)
    assert plan.hash == small_plan(tokenizer, benchmark_root).hash
    assert plan.hash != small_plan(tokenizer, benchmark_root, sample=1).hash
    assert plan.hash != small_plan(tokenizer, benchmark_root, unconditional=False).hash
    pairs = [(spec, load_examples(spec, benchmark_root)) for spec in map(load_benchmark, BENCHMARKS)]
    assert plan.hash != compile_plan(pairs, tokenizer, 64).hash

    save_plan(plan, tmp_path / "plan.npz")
    again = load_plan(tmp_path / "plan.npz")
    assert again.hash == plan.hash and again.info == plan.info
    for field in dataclasses.fields(TokenRows):
        assert np.array_equal(getattr(plan.rows, field.name), getattr(again.rows, field.name))
    for field in dataclasses.fields(Plan):
        if field.name not in ("info", "rows"):
            assert np.array_equal(getattr(plan, field.name), getattr(again, field.name))


def test_the_layout_is_not_part_of_the_question(tokenizer: Tokenizer, benchmark_root: Path) -> None:
    pairs = [(spec, load_examples(spec, benchmark_root)) for spec in map(load_benchmark, BENCHMARKS)]
    shared = compile_plan(pairs, tokenizer, 256)
    alone = shared.unshared()
    assert shared.hash == alone.hash and len(shared.rows.tokens) < len(alone.rows.tokens)
    assert shared.least_tokens < len(alone.rows.tokens)
    assert len(alone.rows.lengths) == alone.num_sequences == shared.num_sequences


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_a_damaged_plan_is_refused_by_name(
    tokenizer: Tokenizer, benchmark_root: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "plan.npz"
    save_plan(small_plan(tokenizer, benchmark_root), path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray(b"PAR1 not a plan")
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"plan\.npz"):
        load_plan(path)
    assert path.read_bytes() == bytes(content)


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("unconditional", [True, False])
def test_real_rows_are_fed_once_and_hardly_padded(shared_data: Path, tmp_path: Path, unconditional: bool) -> None:
    """Of each benchmark by itself, with and without what several documents share."""
    tokenizer = tiny_models.byte_level(tiny_models.corpus(shared_data), tmp_path)
    for spec in map(load_benchmark, BENCHMARKS):
        examples = load_examples(spec, shared_data, StudyScoring(sample=200, unconditional=unconditional))
        plan = compile_plan([(spec, examples)], tokenizer, 2048)
        assert len(plan.rows.tokens) <= 1.02 * plan.least_tokens, spec.slug
        padded = sum(plan.rows.lengths[b].max() * len(b) for b in batch_rows(plan.rows, "cpu"))
        assert padded <= 1.02 * len(plan.rows.tokens), spec.slug
        if spec.slug in ("multirc", "wsc"):  # 58 questions a passage, pronouns of one text
            assert len(plan.rows.tokens) < 0.6 * plan.least_tokens
