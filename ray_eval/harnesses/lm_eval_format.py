"""Samples that lm-evaluation-harness logged (`--log_samples`), read and checked.

In: <output path>/<model>/samples_<task>_<date>.jsonl and, beside it, the results JSON of the same date, which says the
model, the split, the number of shots and the versions. Out: `imported.HarnessSamples`, in the order of our candidates.

Each line holds the whole row of the data set (`doc`), so nothing is taken on trust: our own template (ray_eval/
benchmarks) must give the very requests that were scored, the right answer comes from the row and not from the
harness's `target` (which is inverted for MultiRC), and the accuracy logged must follow from the log-probabilities.
`doc_id` is the row in the split; with `--samples` of unsorted rows the harness numbers them wrongly, and nothing in
its files tells. Processes of a data-parallel run write their rows one after another, so lines come in any order.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.artifacts import read_json
from configs.errors import ArtifactError, DataError
from configs.load import BENCHMARKS, load_benchmark
from configs.schema import BenchmarkConfig
from configs.untrusted.checks import lines_of, parse_json, understood
from ray_eval.benchmarks import DELIMITER
from ray_eval.benchmarks.templates import Question, Template
from ray_eval.harnesses.imported import HarnessSample, HarnessSamples, SampleFile, collect_samples

DATE = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
NAME = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE})\.jsonl")
DTYPES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


def sample_file(path: Path) -> SampleFile | None:
    """Say which model and task a file's samples are of; None for a file of another name.

    Raises DataError where its results are missing.
    """
    name = NAME.fullmatch(path.name)
    if name is None:
        return None
    results = _results(path.parent, name["date"])
    slug = {load_benchmark(slug).lm_eval_task: slug for slug in BENCHMARKS}.get(name["task"])
    return SampleFile(
        path=path,
        model=str(results.get("model_name") or path.parent.name),
        folder=path.parent.name,
        task=name["task"],
        slug=slug,
        skip="" if slug else "none of our benchmarks",
        read=lambda: _read(path, load_benchmark(str(slug)), results),
    )


def _results(folder: Path, date: str) -> dict[str, Any]:
    found = sorted(folder.glob(f"*_{date}.json"))
    if not found:
        hint = "copy it from the harness's output folder: it says model, split, shots and versions"
        raise DataError("the results of these samples are missing", where=folder / f"results_{date}.json", hint=hint)
    results = parsed(found[0], found[0].stat().st_mtime_ns)
    if not isinstance(results, dict) or "configs" not in results:
        raise DataError("not the results of lm-eval", where=found[0], valid="an object with results, configs, n-shot")
    return results


@functools.lru_cache(maxsize=8)  # one for all tasks of a run
def parsed(path: Path, modified: int) -> Any:
    """The JSON in a file that was modified at `modified`. Raises DataError for something else."""
    try:
        return read_json(path)
    except ArtifactError as error:
        raise DataError(error.problem, where=path, hint="copy it again") from None


def _read(path: Path, spec: BenchmarkConfig, results: Mapping[str, Any]) -> HarnessSamples:
    task = spec.lm_eval_task
    with understood(path, DataError, problem=f"its results say too little of {task}"):
        config, shots, count = results["configs"][task], int(results["n-shot"][task]), results["n-samples"][task]
        split = str(config.get("test_split") or config["validation_split"])
        effective, original = int(count["effective"]), int(count["original"])
        facts = _facts(results)
        dataset = "/".join(str(config[key]) for key in ("dataset_path", "dataset_name") if config.get(key))
        version = (results.get("versions") or {}).get(task)
    chat = bool(results.get("chat_template"))
    with path.open("rb") as stream:
        lines = enumerate(lines_of(stream, path, DataError), start=1)
        read = ((f"line {n}", _sample(line, f"{path}, line {n}", spec, shots, chat)) for n, line in lines)
        samples = collect_samples(read, effective, path, "doc_id")
    return HarnessSamples(
        split=split,
        variant=f"lm_eval/{shots}shot" + ("/chat" if chat else ""),
        samples=samples,
        size=original,
        dataset=f"{dataset}, {split}, version {version} of {task}",
        facts=facts,
    )


def _facts(results: Mapping[str, Any]) -> dict[str, str]:
    """What the score file's metadata say of the model and the harness."""
    versions = {"lm_eval": results.get("lm_eval_version"), "transformers": results.get("transformers_version")}
    facts = {"source": f"lm_eval {versions['lm_eval']}", "versions": json.dumps(versions)}
    settings = results.get("config") or {}
    for key, name in (("dtype", "model_dtype"), ("model_revision", "model_revision"), ("model_sha", "model_sha")):
        if settings.get(name):
            facts[key] = DTYPES.get(settings[name], str(settings[name]))
    return facts


def _sample(line: bytes, where: str, spec: BenchmarkConfig, shots: int, chat: bool) -> HarnessSample:
    problem = f"not a sample of {spec.lm_eval_task} as lm-eval 0.4.13 logs it"
    with understood(where, DataError, hint="the file may be cut short: copy it again", problem=problem):
        logged = parse_json(line)
        if logged["filter"] != "none":
            raise DataError(f"filter {logged['filter']!r}", where=where, valid="none: the responses as they were")
        ours = _ours(spec, logged["doc"], where)
        candidates = ours.candidates
        requests = [(request["arg_0"], request["arg_1"]) for request in _in_order(logged["arguments"])]
        logprobs = tuple(float(response[0][0]) for response in logged["resps"])
        # acc_mutual_info doubles the requests: the candidates again, after nothing. That is not our bare prefix.
        if len(requests) == 2 * len(candidates) and not any(context for context, _ in requests[len(candidates) :]):
            requests, logprobs = requests[: len(candidates)], logprobs[: len(candidates)]
        _check_requests(requests, ours, where, shots, chat)
        sample = HarnessSample(int(logged["doc_id"]), candidates, ours.gold, logprobs).check(where)
        # MultiRC's target is the label taken as an index; its gold, from the row, is the truth.
        counted = int(logged["target"]) if spec.slug == "multirc" else ours.gold
        chosen = max(range(len(logprobs)), key=logprobs.__getitem__)  # ties: the first, as in the harness
        if "acc" in logged and bool(logged["acc"]) != (chosen == counted):
            problem = f"acc is {logged['acc']}, but candidate {chosen} has the highest score and {counted} is right"
            raise DataError(problem, where=where, hint="the line was altered, or written by another version")
    return sample


def _in_order(arguments: Mapping[str, Any]) -> list[Any]:
    return [arguments[f"gen_args_{i}"] for i in range(len(arguments))]


def _ours(spec: BenchmarkConfig, row: Mapping[str, Any], where: str) -> Question:
    """What our template of the harness's prompt makes of its row."""
    if spec.slug == "boolq" and "answer" not in row:  # super_glue's columns; the spec names google/boolq's
        row = {**row, "answer": bool(row["label"])}
    return _template(spec.slug)(row, where)


@functools.cache
def _template(slug: str) -> Template:
    return Template(load_benchmark(slug), "lm_eval")


def _check_requests(requests: list[tuple[str, str]], ours: Question, where: str, shots: int, chat: bool) -> None:
    """Refuse what was scored after another prompt, or in another order of the candidates."""
    delimiter = "" if chat else DELIMITER
    for i, text in enumerate(ours.candidates):
        context, (found, scored) = ours.context(i), requests[i]
        same = (
            context.strip() in found if chat else found.endswith(context) if shots else found == context
        ) and scored == delimiter + text
        if not same or len(requests) != len(ours.candidates):
            raise DataError(
                f"request {i} of {len(requests)} is not the prompt of lm-eval 0.4.13: ...{(found + scored)[-80:]!r}",
                where=where,
                valid=f"{len(ours.candidates)} requests, this one ...{(context + delimiter + text)[-80:]!r}",
                hint="samples of changed prompts cannot be compared with the others and are not imported",
            )
