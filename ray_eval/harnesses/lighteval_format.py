"""Details that lighteval saved (`--save-details`), read and checked.

In: <output dir>/details/<model>/<date>/details_<task>_<date>.parquet with the columns `doc` (query, choices,
gold_index, id), `model_response` (logprobs, output_tokens) and `metric`, and <output dir>/results/<model>/
results_<date>.json, which says model, split and settings. Out: `imported.HarnessSamples`.

lighteval's prompts are its own, so the variant is `lighteval/<k>shot`; whether a chat template was applied is known
only where the model's config sets it. Rows come shuffled; `doc.id` is the row in the split. Tasks that evaluate on two
splits number both from 0 and cannot be told apart. Details of older versions (columns `full_prompt`, `predictions`)
name no row. Tasks scored by generation hold no log-probabilities: they are skipped by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.load import load_benchmark
from configs.schema import BenchmarkConfig
from configs.untrusted.checks import DOCUMENT_BYTES, understood
from configs.untrusted.parquet_footer import read_footer
from ray_eval.benchmarks import DELIMITER, prompt_set
from ray_eval.harnesses.imported import HarnessSample, HarnessSamples, SampleFile, collect_samples
from ray_eval.harnesses.lm_eval_format import DATE, DTYPES, parsed

NAME = re.compile(rf"details_.+_(?P<date>{DATE})\.parquet")
TASK = re.compile(r"(?:[^|]+\|)??(?P<task>[^|]+)\|(?P<shots>\d+)(?:\|\d)?")
"""`arc:challenge|25`; older versions put a suite before it and `|0` or `|1` behind."""
SLUGS = {
    **{slug: slug for slug in ("hellaswag", "piqa", "siqa", "winogrande", "sciq", "openbookqa", "boolq")},
    "arc:challenge": "arc_challenge",
    "arc:easy": "arc_easy",
    "commonsenseqa": "commonsense_qa",
    **{f"glue:{slug}": slug for slug in ("mnli", "qnli", "rte", "qqp", "mrpc")},
    **{f"super_glue:{slug}": slug for slug in ("boolq", "cb", "copa", "rte", "wic", "wsc", "multirc")},
}
SPLITS = {"mnli": {"validation": "validation_matched"}}
"""lighteval reads the configuration mnli_matched, whose validation split is that of our name."""


def sample_file(path: Path) -> SampleFile | None:
    """Say which model and task a file's details are of; None for a file of another name.

    Raises DataError for what cannot be read.
    """
    name = NAME.fullmatch(path.name)
    if name is None:
        return None
    first = next(_rows(path, 1))
    with understood(path, DataError, problem="not details of lighteval"):
        named, scored = str(first["doc"]["task_name"]), first["model_response"]["logprobs"]
    task = TASK.fullmatch(named)
    if task is None:
        raise DataError(f"doc.task_name is {named!r}", where=path, valid="<task>|<shots>")
    results = _results(path, name["date"])
    slug = SLUGS.get(task["task"]) if scored else None
    return SampleFile(
        path=path,
        model=str(results["config_general"]["model_name"]),
        folder=path.parent.parent.name,
        task=task["task"],
        slug=slug,
        skip="" if slug else "none of our benchmarks" if task["task"] not in SLUGS else "no log-probabilities",
        read=lambda: _read(path, load_benchmark(str(slug)), task["task"], int(task["shots"]), results),
    )


def _rows(path: Path, batch: int) -> Any:
    """Yields {doc, model_response} of each row. Raises DataError for another file than lighteval's details."""
    hint = "copy it again"
    try:
        if any(chunk.first_page_bytes > DOCUMENT_BYTES for group in read_footer(path) for chunk in group.chunks):
            raise DataError("a page is too large", where=path, valid=f"at most {DOCUMENT_BYTES:,} bytes", hint=hint)
        file = pq.ParquetFile(path)
        names = {name.strip("_"): name for name in file.schema_arrow.names}  # its documentation writes __doc__
        missing = {"doc", "model_response"} - set(names)
        if missing or file.metadata.num_rows == 0:
            problem = f"column {min(missing)} is missing" if missing else "holds no row"
            valid = "details of lighteval 0.11 or later, with the columns doc, metric, model_response"
            raise DataError(problem, where=path, valid=valid)
        columns = [names["doc"], names["model_response"]]
        for part in file.iter_batches(batch, columns=columns):
            for row in part.to_pylist():
                yield {name.strip("_"): value for name, value in row.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable Parquet file ({error})", where=path, hint=hint) from None


def _results(path: Path, date: str) -> dict[str, Any]:
    places = [path.parent / f"results_{date}.json"]
    folders = path.parts
    if "details" in folders:
        at = len(folders) - 1 - folders[::-1].index("details")
        model = folders[at + 1 : -2]
        places.insert(0, Path(*folders[:at], "results", *model, f"results_{date}.json"))
    for place in places:
        if place.is_file():
            results: dict[str, Any] = parsed(place, place.stat().st_mtime_ns)
            try:
                results["config_general"]["model_name"], results["config_tasks"].items()
            except (KeyError, TypeError, AttributeError) as error:
                valid = "config_general.model_name and config_tasks"
                raise DataError(f"not the results of lighteval ({error!r})", where=place, valid=valid) from None
            return results
    hint = "copy it there from the harness's output folder: it says model, split and settings"
    raise DataError("the results of these details are missing", where=places[0], hint=hint)


def _read(path: Path, spec: BenchmarkConfig, task: str, shots: int, results: Mapping[str, Any]) -> HarnessSamples:
    with understood(path, DataError, problem="its results are none of lighteval's"):
        config = _task_config(path, task, results)
        (split,) = config["evaluation_splits"]
        read = ((f"row {n}", _sample(row, f"{path}, row {n}", spec)) for n, row in enumerate(_rows(path, 1024)))
        samples = collect_samples(read, config.get("effective_num_docs") or -1, path, "doc.id")
        general = results["config_general"]
        model = general.get("model_config") or {}
        facts = {"source": f"lighteval {general.get('lighteval_sha') or ''}".strip()}
        if dtype := model.get("dtype") or general.get("model_dtype"):
            facts["dtype"] = DTYPES.get(f"torch.{str(dtype).removeprefix('torch.')}", str(dtype))
        chat = "/chat" if model.get("override_chat_template") is True else ""
        original = config.get("original_num_docs") or -1
        return HarnessSamples(
            split=SPLITS.get(spec.slug, {}).get(split, split),
            variant=f"lighteval/{shots}shot{chat}",
            samples=samples,
            size=original if original > 0 else spec.examples or len(samples),
            dataset=f"{config.get('hf_repo')}/{config.get('hf_subset')}, {split}, version {config.get('version')}",
            facts=facts,
        )


def _task_config(path: Path, task: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What the results say of a task that was evaluated on one split."""
    tasks = results["config_tasks"]
    config: dict[str, Any] | None = next((tasks[name] for name in tasks if task in name.split("|")), None)
    if config is None:
        raise DataError(f"its results hold no config of {task}", where=path, valid=", ".join(tasks))
    splits = list(config.get("evaluation_splits") or ())
    if len(splits) != 1:
        hint = "rows of several splits bear the same numbers: evaluate on one"
        raise DataError(f"evaluation_splits is {splits}", where=path, valid="one split", hint=hint)
    return config


def _sample(row: Mapping[str, Any], where: str, spec: BenchmarkConfig) -> HarnessSample:
    doc, response = row["doc"], row["model_response"]
    with understood(where, DataError, problem="not a detail of lighteval with log-probabilities"):
        candidates = tuple(choice.removeprefix(DELIMITER) for choice in doc["choices"])
        count, gold = len(candidates), doc["gold_index"]
        (right,) = gold if isinstance(gold, list) else (gold,)
        logprobs = tuple(float(value) for value in response["logprobs"])
        # A PMI metric appends the candidates after `unconditioned_query`; ours is the score after the spec's prefix.
        bare = None
        if len(logprobs) == 2 * count:
            bare = logprobs[count:] if doc.get("unconditioned_query") == _answer_prefix(spec) else None
            logprobs = logprobs[:count]
        tokens = (response.get("output_tokens") or [])[:count]
        lengths = tuple(sum(token >= 0 for token in ids) for ids in tokens)  # -1 pads
        return HarnessSample(int(doc["id"]), candidates, int(right), logprobs, lengths or None, bare).check(where)


def _answer_prefix(spec: BenchmarkConfig) -> str | None:
    """What our own unconditional log-probabilities follow."""
    return spec.prompts[prompt_set(spec, None)].answer_prefix
