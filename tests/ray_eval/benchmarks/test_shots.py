"""Solved examples and conversations against lm-evaluation-harness's own code, for the same shots."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_rows import ROWS, write_benchmarks
from test_prompts import harness

from configs.errors import ConfigError, DataError
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import BenchmarkConfig, StudyScoring
from mixtures.sources.benchmark_rows import read_train_rows, sample_rows, source_identity
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import DELIMITER, load_examples
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.plans.encoding import Encodings
from ray_eval.results import read_scores
from ray_eval.score import main
from ray_eval.scoring import ScoreOptions, score_study, study_plan

SHOTS = 3
WITHOUT_TRAIN = ("hellaswag", "sciq")
"""In ../shared/data."""
VARIED = {
    "hellaswag": "activity_label",
    "piqa": "goal",
    "copa": "premise",
    "siqa": "context",
    "commonsense_qa": "question",
    "winogrande": "sentence",
    "boolq": "passage",
    "arc_challenge": "question",
    "arc_easy": "question",
    "sciq": "support",
    "openbookqa": "question_stem",
    "mnli": "premise",
    "qnli": "question",
    "rte": "sentence1",
    "cb": "premise",
    "qqp": "question1",
    "mrpc": "sentence1",
    "wic": "sentence2",
    "wsc": "span1_text",
    "multirc": "paragraph",
}
"""A column whose text may be changed without making the row invalid."""


def train_rows(slug: str) -> list[dict[str, Any]]:
    column = VARIED[slug]
    return [row | {column: f"Train{i} {row[column]}"} for i in range(4) for row in ROWS[slug]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_benchmarks(tmp_path_factory.mktemp("with_train"))
    for slug in BENCHMARKS:
        pq.write_table(pa.Table.from_pylist(train_rows(slug)), folder / "benchmarks" / slug / "train.parquet")
    return folder


def differences(slug: str, root: Path, tmp: Path, sample: int | None = None) -> list[str]:
    spec = load_benchmark(slug)
    examples = load_examples(spec, root, StudyScoring(sample=sample, shots=SHOTS))
    rows = pq.read_table(root / "benchmarks" / slug / f"{spec.split_in(local=True)}.parquet")
    train = pq.read_table(root / "benchmarks" / slug / "train.parquet")
    shots = train.take(read_train_rows(root, spec, SHOTS).numbers)
    if slug == "multirc":  # the harness takes the label for the candidate's index, so its shots are wrong; ours are not
        index = shots.schema.get_field_index("label")
        shots = shots.set_column(index, "label", pa.array([1 - v for v in shots["label"].to_pylist()]))
    found = []
    rows = rows.take([example.row for example in examples])
    for example, (requests, _) in zip(examples, harness(slug, rows, tmp, shots), strict=True):
        assert example.variant == f"lm_eval/{SHOTS}shot"
        ours = [(example.context(i), DELIMITER + text) for i, text in enumerate(example.candidates)]
        if ours != requests:
            found.append(f"{example.example_id}: {ours}, harness: {requests}")
    return found


@pytest.mark.parametrize("slug", BENCHMARKS)
def test_shots_are_joined_as_the_harness_joins_them(slug: str, root: Path, tmp_path: Path) -> None:
    assert differences(slug, root, tmp_path) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", [slug for slug in BENCHMARKS if slug not in WITHOUT_TRAIN])
def test_real_shots_are_joined_as_the_harness_joins_them(slug: str, shared_data: Path, tmp_path: Path) -> None:
    assert differences(slug, shared_data, tmp_path, sample=20) == []


def fronts(root: Path, **options: Any) -> set[str]:
    """What stands in front of SIQA's rows."""
    spec = load_benchmark("siqa")
    options = {"sample": None, "seed": 0} | options
    plain = load_examples(spec, root, StudyScoring(sample=options["sample"], seed=options["seed"]))
    pairs = zip(load_examples(spec, root, StudyScoring(**options)), plain, strict=True)
    return {str(shown.context(0)).removesuffix(str(bare.context(0))) for shown, bare in pairs}


def test_shots_are_fixed_and_the_same_for_all_rows(root: Path) -> None:
    (front,) = fronts(root, shots=2)
    assert front == (  # the same on every machine
        "Q: Train3 Ola fell.  Why?\nA: wind\n\nQ: Train1 Mara lent Tom a rope. How does Tom feel?\nA: grateful\n\n"
    )
    assert fronts(root, shots=2, sample=1) == {front}
    assert fronts(root, shots=2, seed=1) != {front}
    (more,) = fronts(root, shots=3)
    assert more.startswith(front)
    assert fronts(root) == {""}
    examples = load_examples(load_benchmark("siqa"), root, StudyScoring(shots=2))
    assert {example.unconditional for example in examples} == {"A:"}  # no shots in front


def test_a_row_is_never_among_its_own_shots(tmp_path: Path) -> None:
    rows = [ROWS["rte"][0] | {"sentence1": f"Fact {i}."} for i in range(6)]
    folder = tmp_path / "benchmarks" / "rte"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    examples = load_examples(load_benchmark("rte"), tmp_path, StudyScoring(shots=5))
    for i, example in enumerate(examples):
        context = str(example.context(0))
        assert context.count(f"Fact {i}.") == 1 and context.count("Fact ") == 6
    with pytest.raises(DataError, match=r"6 different rows, too few for 6 shots(.|\n)*valid: 7 rows"):
        load_examples(load_benchmark("rte"), tmp_path, StudyScoring(shots=6))
    # Equal rows count once.
    pq.write_table(pa.Table.from_pylist(rows[:2] * 10), folder / "train.parquet")
    with pytest.raises(DataError, match="2 different rows"):
        load_examples(load_benchmark("rte"), tmp_path, StudyScoring(shots=2))


def test_train_rows_do_not_follow_the_sample(root: Path) -> None:
    spec = load_benchmark("mnli")
    drawn = read_train_rows(root, spec, 12).numbers
    assert sorted(drawn) == list(range(12)) != drawn
    assert drawn[:5] != sample_rows(12, 5, "0/mnli")
    assert source_identity(root, spec, train=True) != source_identity(root, spec)
    assert "/train@" in source_identity(None, spec, train=True)


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", WITHOUT_TRAIN)
def test_a_missing_train_split_is_named(slug: str, shared_data: Path) -> None:
    spec = load_benchmark(slug)
    with pytest.raises(DataError) as error:
        load_examples(spec, shared_data, StudyScoring(sample=1, shots=1))
    message = str(error.value)
    assert f"{slug}/train.parquet: the train rows of {spec.display} are missing" in message
    assert f"score {spec.display} without shots" in message


# ---------------------------------------------------------------------------------------------- conversations


@pytest.mark.parametrize("shots", [0, SHOTS])
@pytest.mark.parametrize("slug", BENCHMARKS)
def test_conversations_are_those_of_the_harness(
    slug: str, shots: int, root: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Equal ids but for three things: the harness scores the line break in front of the answer too, it leaves white
    space around the answer, which training strips, and it inverts MultiRC's shots."""
    from lm_eval.api.model import TemplateLM
    from transformers import AutoTokenizer

    hugging_face = AutoTokenizer.from_pretrained(tokenizer.folder)

    class Harness(TemplateLM):
        backend = "causal"

        def tok_encode(self, string: str, **_: object) -> list[int]:  # type: ignore[override]
            return list(hugging_face(string, add_special_tokens=False)["input_ids"])

    Harness.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]

    def chat_template(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            hugging_face.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        )

    spec = load_benchmark(slug)
    examples = load_examples(spec, root, StudyScoring(shots=shots, chat=True))
    assert {example.variant for example in examples} == {f"lm_eval/{shots}shot/chat"}
    encode = Encodings(tokenizer, 4096, examples)
    drawn = None
    if shots:
        drawn_rows = [train_rows(slug)[i] for i in read_train_rows(root, spec, shots).numbers]
        if slug == "multirc":
            drawn_rows = [row | {"label": 1 - row["label"]} for row in drawn_rows]
        drawn = pa.Table.from_pylist(drawn_rows)
    requests = harness(
        slug,
        pa.Table.from_pylist(ROWS[slug]),
        tmp_path,
        drawn,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=chat_template,
    )
    line_break = tokenizer.encode("\n")
    for example, (pairs, _) in zip(examples, requests, strict=True):
        for i, (context, continuation) in enumerate(pairs):
            before, after = Harness()._encode_pair(context, continuation.strip())  # type: ignore[abstract]
            ours = encode(example.context(i), example.candidates[i])
            assert ours.ids.tolist() == before + after
            assert after == line_break + ours.ids[-ours.num_targets :].tolist()
            assert continuation.strip() == example.candidates[i]


def test_the_conversation_by_hand(tokenizer: Tokenizer, root: Path) -> None:
    example = load_examples(load_benchmark("copa"), root, StudyScoring(chat=True))[0]
    assert example.contexts == (("The lamp went out because",),)
    assert example.candidates[0] == "the oil was gone."
    scored = Encodings(tokenizer, 512, [example])(example.context(0), example.candidates[0])
    assert tokenizer.decode(scored.ids) == "<|user|>\nThe lamp went out because\n<|assistant|>\nthe oil was gone."
    assert tokenizer.decode(scored.ids[-scored.num_targets :]) == "the oil was gone."

    example = load_examples(load_benchmark("rte"), root, StudyScoring(chat=True, shots=1))[0]
    assert example.unconditional == ("Answer:",)
    encode = Encodings(tokenizer, 512, [example])
    alone = encode(example.unconditional, "True")
    assert tokenizer.decode(alone.ids) == "<|user|>\nAnswer:\n<|assistant|>\nTrue"
    text = tokenizer.decode(encode(example.context(0), "True").ids)
    assert text.startswith("<|user|>\nTrain") and text.count("<|user|>") == text.count("<|assistant|>") == 2
    assert text.count("<|endoftext|>\n<|user|>") == 1  # a shot's answer ends as in training

    cut = Encodings(tokenizer, 12, [example])(example.context(0), "True")
    assert cut.truncated and cut.ids.tolist() == encode(example.context(0), "True").ids[-13:].tolist()


def test_a_tokenizer_without_a_chat_format_is_refused(root: Path) -> None:
    class Plain:
        eod, sha256, bos_policy = 0, "plain", "none"

        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            return [[1] for _ in texts]

    example = load_examples(load_benchmark("rte"), root, StudyScoring(chat=True))[0]
    with pytest.raises(ConfigError, match="no chat format"):
        Encodings(Plain(), 16, [example])(example.context(0), "True")


def test_only_fine_tuned_checkpoints_are_asked_in_chat(
    make_export: Callable[..., Path], root: Path, tmp_path: Path
) -> None:
    for stage in ("pt", "sft-tulu"):
        make_export(StudyFolder(tmp_path, "trial").run("mini_s", "V1P0", 0, stage).path / "export" / "step-0000001")
    (tmp_path / "wordplay.yaml").write_text(RIDDLES)
    shutil.copy(root / "benchmarks" / "piqa" / "validation.parquet", tmp_path / "riddles.parquet")
    score_study(
        StudyFolder(tmp_path, "trial"),
        ScoreOptions(
            documents_root=root,
            benchmarks=["rte", str(tmp_path / "wordplay.yaml")],
            scoring=StudyScoring(chat=True),
            use_ray=False,
        ),
    )
    found = {}
    for path in (tmp_path / "trial" / "scores").rglob("*.parquet"):
        table = read_scores(path)
        (stage,) = set(table["stage"].to_pylist())
        names = zip(*(table[name].to_pylist() for name in ("benchmark", "category", "variant")), strict=True)
        found[stage] = sorted(set(names))
    assert found == {
        "PT": [("riddles", "wordplay", "own/0shot"), ("rte", "nli", "lm_eval/0shot")],
        "SFT": [("riddles", "wordplay", "own/0shot/chat"), ("rte", "nli", "lm_eval/0shot/chat")],
    }


def test_the_command_line_says_how_to_ask(
    make_export: Callable[..., Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_export(StudyFolder(tmp_path, "trial").run("mini_s", "V1P0", 0, "pt").path / "export" / "step-0000001")
    command = ["--no-ray", "--runs", str(tmp_path), "--data-root", str(root), "--limit", "1"]

    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*command, *arguments])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "benchmark rte: no prompt set 'olmes'" in refused("--benchmarks", "piqa,rte", "--prompt", "olmes")
    assert "command line: shots: input should be greater than or equal to 0" in refused("--shots", "-1")
    assert "unknown benchmark 'riddles'" in refused("--benchmarks", "piqa,riddles")
    assert not list(tmp_path.rglob("*.parquet"))

    main([*command, "--benchmarks", "piqa,siqa", "--prompt", "olmes_mc", "--shots", "2"])
    (path,) = (tmp_path / "trial" / "scores").rglob("*.parquet")
    assert read_scores(path)["variant"].to_pylist() == ["olmes_mc/2shot"] * 2


def test_a_plan_is_of_its_variant_and_of_the_train_rows(
    make_export: Callable[..., Path], root: Path, tmp_path: Path
) -> None:
    """Cached plans are not taken for another way to ask, nor once the rows that shots come from have changed."""
    folder = tmp_path / "data"
    shutil.copytree(root / "benchmarks" / "rte", folder / "benchmarks" / "rte")
    make_export(StudyFolder(tmp_path, "trial").run("mini_s", "V1P0", 0, "sft-tulu").path / "export" / "step-0000001")
    (export,) = inspect_exports(StudyFolder(tmp_path, "trial"))[0]

    def plan(**asked: Any) -> str:
        return study_plan(
            StudyFolder(tmp_path, "trial"), export, ScoreOptions(folder, ["rte"], StudyScoring(**asked))
        ).hash

    plans = [plan(), plan(prompt="lettered"), plan(shots=1), plan(shots=2), plan(shots=1, seed=1), plan(chat=True)]
    assert len(set(plans)) == len(plans)
    assert plan(prompt="lm_eval") == plans[0]
    train = folder / "benchmarks" / "rte" / "train.parquet"
    changed = [row | {"sentence1": f"New {row['sentence1']}"} for row in train_rows("rte")]
    pq.write_table(pa.Table.from_pylist(changed), train)
    assert plan() == plans[0] and plan(shots=1) != plans[2]


RIDDLES = """
slug: riddles
display: Riddles
category: wordplay
files: {test: riddles.parquet}
split: test
columns: [goal, sol1, sol2, label]
label: label
labels: [0, 1]
prompts:
  own:
    context: "{{ goal }}"
    candidates: ["{{ sol1 }}", "{{ sol2 }}"]
"""


def test_specs_without_a_place_are_refused() -> None:
    spec = BenchmarkConfig.model_validate(load_benchmark("rte").model_dump() | {"hub": None, "slug": "mine"})
    with pytest.raises(DataError, match="no place to read from"):
        load_examples(spec, None)
