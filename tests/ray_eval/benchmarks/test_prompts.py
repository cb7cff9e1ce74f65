"""Every prompt, candidate and right answer against lm-evaluation-harness itself, which renders its own task files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_rows import ROWS
from harness_runs import TASK_FILES

from configs.errors import DataError
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import StudyScoring
from ray_eval.benchmarks import DELIMITER, load_examples


def harness_task(slug: str, rows: pa.Table, folder: Path) -> Any:
    """The harness's own task, reading `rows` instead of the Hub."""
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    if slug == "boolq":  # the harness reads super_glue's columns, the spec google/boolq's
        label = rows["answer"].cast(pa.int64())
        rows = rows.append_column("label", label)
    folder.mkdir(exist_ok=True)
    path = folder / "rows.parquet"
    pq.write_table(rows, path)
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / f"{TASK_FILES[slug]}.yaml")
    split = config.get("test_split") or config["validation_split"]
    config |= {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": split,
        "test_split": None,
        "fewshot_split": split,
    }
    return ConfigurableTask(config={k: v for k, v in config.items() if k not in ("tag", "group")})


def harness(
    slug: str, rows: pa.Table, tmp: Path, shots: pa.Table | None = None, **chat: Any
) -> Iterator[tuple[list[tuple[str, str]], int]]:
    """The harness's requests (context, continuation) and right index for each row, from its own task file.

    shots: rows that its sampler is made to draw, for every row; chat: what its command line would pass on.
    """
    task = harness_task(slug, rows, tmp)
    if shots is not None:
        drawn = list(harness_task(slug, shots, tmp / "shots").eval_docs)
        task.sampler = SimpleNamespace(sample=lambda n, eval_doc=None: drawn)
    for doc in task.eval_docs:
        context = task.fewshot_context(doc, num_fewshot=len(shots or ()), **chat)
        requests = task.construct_requests(doc, context, metadata=(slug, 0, 1), apply_chat_template=bool(chat))
        one_hot = [[(float(i == j), False) for i in range(len(requests))] for j in range(len(requests))]
        right = [j for j, results in enumerate(one_hot) if task.process_results(doc, results)["acc"] == 1.0]
        assert len(right) == 1
        yield [request.args for request in requests], right[0]


def compare(slug: str, root: Path, rows: pa.Table, tmp: Path, sample: int | None = None) -> list[str]:
    """Differences between our examples and the harness's."""
    examples = load_examples(load_benchmark(slug), root, StudyScoring(sample=sample))
    rows = rows.take([example.row for example in examples])
    differences = []
    for example, (requests, gold) in zip(examples, harness(slug, rows, tmp), strict=True):
        if slug == "multirc":
            gold = 1 - gold  # the harness inverts it; ours is the truth
        ours = [(example.context(i), DELIMITER + text) for i, text in enumerate(example.candidates)]
        if ours != requests or example.gold != gold:
            differences.append(f"{example.example_id}: {ours} gold {example.gold}, harness: {requests} gold {gold}")
    return differences


@pytest.mark.parametrize("slug", BENCHMARKS)
def test_invented_rows_give_the_harness_requests(slug: str, benchmark_root: Path, tmp_path: Path) -> None:
    assert compare(slug, benchmark_root, pa.Table.from_pylist(ROWS[slug]), tmp_path) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", BENCHMARKS)
def test_real_rows_give_the_harness_requests(slug: str, shared_data: Path, tmp_path: Path) -> None:
    spec = load_benchmark(slug)
    rows = pq.read_table(shared_data / "benchmarks" / slug / f"{spec.split_in(local=True)}.parquet")
    assert compare(slug, shared_data, rows, tmp_path, sample=200) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("slug", BENCHMARKS)
def test_real_benchmarks_are_as_large_as_the_spec_says(slug: str, shared_data: Path) -> None:
    spec = load_benchmark(slug)
    examples = load_examples(spec, shared_data)
    assert len(examples) == spec.examples
    assert [example.row for example in examples] == list(range(spec.examples))
    counts = {len(example.candidates) for example in examples}
    assert counts == {spec.choices} if spec.choices else counts <= {2, 3, 4, 5}


def write_rows(root: Path, slug: str, rows: list[dict[str, Any]]) -> Path:
    path = root / "benchmarks" / slug / f"{load_benchmark(slug).split_in(local=True)}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize(
    ("slug", "column", "value", "valid"),
    [
        ("mnli", "label", 3, "0, 1, 2"),
        ("qqp", "label", -1, "0, 1"),
        ("hellaswag", "label", "", "'0', '1', '2', '3'"),
        ("winogrande", "answer", "3", "'1', '2'"),
        ("commonsense_qa", "answerKey", "F", "'A', 'B', 'C', 'D', 'E'"),
        ("arc_easy", "answerKey", "4", "'1', '2', '3'"),
    ],
)
def test_a_label_out_of_range_is_refused_by_file_row_and_value(
    slug: str, column: str, value: Any, valid: str, tmp_path: Path
) -> None:
    good = ROWS[slug][1] if slug != "arc_easy" else ROWS["arc_challenge"][1]
    path = write_rows(tmp_path, slug, [good, good | {column: value}])
    with pytest.raises(DataError) as error:
        load_examples(load_benchmark(slug), tmp_path)
    message = str(error.value)
    assert f"{path}, row 1" in message and f"{column}={value!r}" in message and f"valid: {valid}" in message


def test_other_bad_rows_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[str, list[dict[str, Any]], str]] = [
        (
            "winogrande",
            [ROWS["winogrande"][0] | {"sentence": "no blank"}],
            "row 0: cannot be made into a WinoGrande prompt",
        ),
        ("copa", [ROWS["copa"][0] | {"question": "why"}], "question is 'why', valid: cause, effect"),
        ("rte", [ROWS["rte"][0] | {"sentence2": None}], "row 0: column 'sentence2' is null"),
        ("qnli", [{"question": "?", "label": 0}], "column 'sentence' is missing"),
        ("cb", [], "is missing"),
    ]
    for slug, rows, message in cases:
        write_rows(tmp_path, slug, rows)
        with pytest.raises(DataError, match=message.replace("?", r"\?")):
            load_examples(load_benchmark(slug), tmp_path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    spec = load_benchmark("wic")
    with pytest.raises(DataError, match=r"wic/validation\.parquet: the evaluation rows of WiC are missing"):
        load_examples(spec, tmp_path)
    path = write_rows(tmp_path, "wic", ROWS["wic"])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"wic/validation\.parquet: not a readable Parquet file"):
        load_examples(spec, tmp_path)


def test_samples_are_fixed_ordered_and_nested(tmp_path: Path) -> None:
    write_rows(tmp_path, "qqp", [ROWS["qqp"][0] | {"question1": str(i)} for i in range(500)])
    spec = load_benchmark("qqp")

    def rows(sample: int | None, seed: int = 0) -> list[int]:
        return [example.row for example in load_examples(spec, tmp_path, StudyScoring(sample=sample, seed=seed))]

    assert rows(5) == [24, 38, 74, 145, 454]  # the same on every machine
    assert rows(50) == sorted(rows(50)) and set(rows(50)) < set(rows(100))
    assert rows(50, seed=1) != rows(50)
    assert rows(None) == rows(500) == rows(1000) == list(range(500))
    assert abs(sum(rows(200)) / 200 - 249.5) < 30  # spread over the whole file


def test_the_unconditional_prefix_can_be_switched_off(benchmark_root: Path) -> None:
    spec = load_benchmark("piqa")
    assert {e.unconditional for e in load_examples(spec, benchmark_root)} == {"Answer:"}
    assert {e.unconditional for e in load_examples(spec, benchmark_root, StudyScoring(unconditional=False))} == {None}
    assert {e.unconditional for e in load_examples(load_benchmark("winogrande"), benchmark_root)} == {None}
