"""Samples of other harnesses that were altered: imported, or refused by name; nothing is written elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged, examples, files_below, odd_values, read_or_refuse, retyped
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import MagicError
from configs.layout import StudyFolder
from configs.load import load_benchmark
from ray_eval.benchmarks import DELIMITER
from ray_eval.benchmarks.templates import Template
from ray_eval.harnesses.imported import read_identities
from ray_eval.harnesses.importer import find_models, identify, import_model
from ray_eval.import_results import parse

DATE = "2026-11-28T10-00-00.000000"
ROWS = [{"goal": f"open door {i}", "sol1": "push it", "sol2": "eat it", "label": i % 2} for i in range(3)]


def lm_eval_lines() -> list[dict[str, Any]]:
    template = Template(load_benchmark("piqa"), "lm_eval")
    lines = []
    for number, row in enumerate(ROWS):
        asked = template(row, "row")
        requests = [{"arg_0": asked.context(i), "arg_1": DELIMITER + text} for i, text in enumerate(asked.candidates)]
        arguments = {f"gen_args_{i}": request for i, request in enumerate(requests)}
        right = asked.gold == 0
        resps = [[[-1.0, False]], [[-2.0, False]]]
        lines.append({"doc_id": number, "doc": row, "filter": "none", "arguments": arguments, "resps": resps})
        lines[-1] |= {"target": str(asked.gold), "acc": float(right)}
    return lines


LM_EVAL_RESULTS = {
    "results": {"piqa": {"acc,none": 0.5}},
    "configs": {"piqa": {"dataset_path": "piqa", "validation_split": "validation"}},
    "n-shot": {"piqa": 0},
    "n-samples": {"piqa": {"original": 3, "effective": 3}},
    "versions": {"piqa": 1.0},
    "config": {"model_dtype": "torch.float32", "model_revision": "main"},
    "model_name": "org/model",
    "lm_eval_version": "0.4.13",
}
LIGHTEVAL_ROWS = [
    {
        "doc": {"task_name": "piqa|0", "id": str(i), "query": "q", "choices": [" a", " b"], "gold_index": [0]},
        "model_response": {"logprobs": [-1.0, -2.0], "output_tokens": [[1], [2]]},
    }
    for i in range(3)
]
LIGHTEVAL_RESULTS = {
    "config_general": {"model_name": "org/model", "model_config": {"dtype": "bfloat16"}},
    "config_tasks": {"piqa|0": {"evaluation_splits": ["validation"], "effective_num_docs": 3, "hf_repo": "piqa"}},
}


def as_lines(lines: Any) -> bytes:
    items = lines if isinstance(lines, list) else [lines]
    return b"".join(json.dumps(line).encode() + b"\n" for line in items)


def as_parquet(rows: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


PLACES = {
    "lm_eval": (f"out/org__model/samples_piqa_{DATE}.jsonl", f"out/org__model/results_{DATE}.json"),
    "lighteval": (
        f"out/details/org/model/{DATE}/details_piqa|0_{DATE}.parquet",
        f"out/results/org/model/results_{DATE}.json",
    ),
}
WHOLE = {
    "lm_eval": (as_lines(lm_eval_lines()), json.dumps(LM_EVAL_RESULTS).encode()),
    "lighteval": (as_parquet(LIGHTEVAL_ROWS), json.dumps(LIGHTEVAL_RESULTS).encode()),
}
TREES: dict[str, tuple[Any, Any]] = {
    "lm_eval": (lm_eval_lines(), LM_EVAL_RESULTS),
    "lighteval": (LIGHTEVAL_ROWS, LIGHTEVAL_RESULTS),
}


def write(folder: Path, harness: str, samples: bytes, results: bytes) -> None:
    for name, content in zip(PLACES[harness], (samples, results), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def bring_in(folder: Path) -> Path:
    """Import what lies in <folder>/out into the study `s` below <folder>/runs; the score file."""
    one = ["--study", "s", "--scale", "a", "--mixture", "b", "--step", "1", "--tokens", "1"]
    given = parse([str(folder / "out"), *one])
    models, _ = find_models(given.paths)
    for name, identity in identify(models, given).items():
        path = identity.score_file(StudyFolder(folder / "runs", "s"))
        import_model(models[name], identity, "s", path, False)
    return path


def outside(folder: Path) -> set[Path]:
    """Files that are neither what was imported nor the study's scores."""
    known = (folder / "out", folder / "runs" / "s" / "scores")
    return {path for path in files_below(folder) if not any(path.is_relative_to(place) for place in known)}


@pytest.mark.parametrize("harness", PLACES)
def test_what_is_whole_is_imported(harness: str, tmp_path: Path) -> None:
    write(tmp_path, harness, *WHOLE[harness])
    assert pq.read_table(bring_in(tmp_path)).num_rows == 3


@pytest.mark.parametrize("harness", PLACES)
@pytest.mark.parametrize("which", [0, 1], ids=["samples", "results"])
@examples(30)
@given(data=st.data())
def test_altered_samples_are_imported_or_refused(
    which: int, harness: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("i")
    content = list(WHOLE[harness])
    if data.draw(st.booleans()):
        content[which] = data.draw(damaged(content[which]))
    else:
        tree = data.draw(retyped(TREES[harness][which]))
        try:
            binary = which == 0 and harness == "lighteval"
            content[which] = as_parquet(tree) if binary else as_lines(tree) if which == 0 else json.dumps(tree).encode()
        except (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            return  # no table
    write(folder, harness, *content)
    error = read_or_refuse(lambda: bring_in(folder))
    assert error is None or str(folder / "out") in str(error) or "org/model" in str(error)
    assert not outside(folder)


@examples(60)
@given(odd_values)
@example("[" * 100_000)
@example('{"filter": "none", "doc": {"goal": "\\ud800", "sol1": "\\ud800", "sol2": "b", "label": 0}}')
@example('{"doc_id": Infinity}')
def test_any_line_is_refused(tmp_path_factory: Any, value: Any) -> None:
    folder = tmp_path_factory.mktemp("i")
    line = value if isinstance(value, str) else json.dumps(value)
    write(folder, "lm_eval", line.encode(errors="surrogatepass") + b"\n", WHOLE["lm_eval"][1])
    assert isinstance(read_or_refuse(lambda: bring_in(folder)), MagicError)
    assert not outside(folder)


@examples(60)
@given(
    st.sampled_from(["model", "scale", "mixture", "stage", "recipe", "seed", "step", "tokens"]),
    st.text(max_size=6) | st.sampled_from(("../x", "/x", "a/b", "\x1b[2J", "1e999", "-1", "9" * 5000, 'a"b\n,')),
)
def test_any_table_of_identities_is_read_or_refused(tmp_path_factory: Any, column: str, cell: str) -> None:
    path = tmp_path_factory.mktemp("m") / "models.csv"
    row = {"model": "m", "scale": "a", "mixture": "b", "stage": "PT", "recipe": "", "seed": 0, "step": 1, "tokens": 1}
    row[column] = cell
    text = ",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n"
    path.write_bytes(text.encode(errors="surrogatepass"))

    def read() -> None:
        for identity in read_identities(path).values():
            runs = path.parent / "runs"
            assert identity.score_file(StudyFolder(runs, "s")).resolve().is_relative_to(runs / "s" / "scores")

    read_or_refuse(read)
