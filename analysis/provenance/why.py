"""Why does the report say this number? From a cell of a table back to commands, commit, configs, data and hardware.

In: the keys of a number (`analysis.provenance.lookup`), a study's folder or a published one. Out: `trace_number` gives
everything that is known as one JSON object, `format_trace` the same as text: what all runs share is written once, and
exceptions by name.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.panel.load import load_panel
from analysis.provenance.lookup import METRICS, describe_row, find_rows, find_table, metrics_sheet, row_scope
from analysis.provenance.origins import (
    Facts,
    checkpoints_in,
    find_doubts,
    runs_behind,
    score_files_behind,
    units_behind,
)
from analysis.rendering.table import Sheet, Table
from analysis.scores.score_files import score_files
from analysis.tables.catalogue import build_tables
from analysis.tables.settings import MAKERS as SETTINGS
from analysis.tables.settings import settings_tables
from configs.artifacts import sha256_file
from configs.clock import clock
from configs.layout import StudyFolder, runs_root

UNKNOWN = "not recorded"
SHOWN = 8
"""Rows, files or exceptions that are listed for people; JSON has all."""
LABEL = 20
"""Characters."""


def trace_number(
    study: StudyFolder, table: str, words: Sequence[str], recipe: str | None = None, archive: str | None = None
) -> Facts:
    """words: of the row's keys, and perhaps a column; archive: the zip that the study was unpacked from.

    Raises ConfigError where the words name no number.
    """
    name = find_table(table)
    panel = load_panel(study, recipe)
    made: Table | Sheet
    if name == METRICS:
        made, scores = metrics_sheet(study)
    elif name in SETTINGS:
        (made,) = settings_tables(panel, [name])
        scores = [panel.scores_behind(row_scope(made, i)) for i in range(len(made.rows))]
    else:
        (made,) = build_tables(panel, [name])
        scores = [row.scores for row in made.rows]
    rows, column = find_rows(made, words, scores)
    first = rows[0]
    cells = {scores[first]} if name == METRICS else set().union(*panel.cells_behind(row_scope(made, first)))
    files = score_files_behind(study, cells)
    trained = runs_behind(study, files)
    units = units_behind(study.path, files, trained) if files else {}
    return {
        "study": study.name,
        "synthetic": panel.synthetic,
        "table": {"name": made.name, "title": made.title},
        "column": column,
        "rows": [describe_row(made, row) for row in rows],
        "seeds": list(panel.seeds) if name == METRICS or panel.average_seeds else [panel.seeds[0]],
        "scores": {"fingerprint": scores[first], "files": files},
        "runs": trained,
        "units": units,
        "study.yaml": sha256_file(study.config) if study.config.is_file() else None,
        "doubts": find_doubts(files, trained, units),
        "commands": commands(study, name, trained, archive),
    }


def commands(study: StudyFolder, table: str, runs: Mapping[str, Facts], archive: str | None) -> list[tuple[str, str]]:
    """(command, what it makes), from the data to the number."""
    commits = Counter(str(run["git_commit"]) for run in runs.values() if run["git_commit"])
    lines = []
    if commits:
        commit, dirty, _ = commits.most_common(1)[0][0].partition("-dirty")
        code = "the commit; the code differed from it, and how is not recorded" if dirty else "the code"
        lines.append((f"git checkout {commit}", code))
    place = f"--study {archive}"
    if archive is None:
        below = "" if study.runs == runs_root() else f" --runs {study.runs}"
        place = f"--study {study.name}{below}"
        if study.config.is_file():
            again = f"python study.py run {study.config} --runs again --data again/data"
            lines.append((again, "everything anew: token shards, runs, scores"))
        if score_files(study):
            lines.append((f"python study.py collect {study.name}{below}", "metrics.parquet, from these score files"))
    if table == METRICS:
        return lines
    shown = f" --table {table.removeprefix('table')} --format csv"
    return [*lines, (f"python -m analysis.tables {place}{shown}", "the table, at full precision")]


# ---------------------------------------------------------------------------------------------- for people


def format_trace(facts: Facts) -> str:
    """The answer in lines for a terminal."""
    doubts = ["", "Doubts", *(f"  {line}" for line in facts["doubts"])] if facts["doubts"] else []
    commands = [f"  {command}   # {makes}" for command, makes in facts["commands"]]
    found = [*_number(facts), *_scores(facts), *_trainings(facts), *_data(facts), *_units(facts)]
    return "\n".join([*found, *doubts, "", "Made again by", *commands])


def _number(facts: Facts) -> list[str]:
    lines = [facts["table"]["title"]]
    if facts["synthetic"]:
        lines.append(
            "SYNTHETIC: documents, benchmarks and fine-tuning set are generated; no claim on real data follows"
        )
    for row in facts["rows"][:SHOWN]:
        named = {name.replace("_", " "): key for name, key in row["keys"].items() if key}
        keys = ", ".join(key if key.startswith(name) else f"{name} {key}" for name, key in named.items())
        shown = row["shown"]
        if facts["column"]:
            shown = {facts["column"]: shown.get(facts["column"], "empty")}
        width = max(map(len, shown), default=LABEL)
        lines += ["", f"  {keys}", *(f"    {name:<{width}} {cell}" for name, cell in shown.items())]
    return lines + _count_rest(facts["rows"], "  and {} more rows of the same score files")


def _scores(facts: Facts) -> list[str]:
    """How the models were scored, as the score files and the units' records say."""
    files = facts["scores"]["files"]
    if not files:
        return ["", "Scores", "  no score files are here: the metrics were given, or published without them"]
    checkpoints, megabytes = set(checkpoints_in(files)), sum(file["bytes"] for file in files) / 1e6
    lines = [
        "",
        f"Scores: {len(files)} files, {megabytes:,.1f} MB, {len(checkpoints)} checkpoints; "
        f"fingerprint {facts['scores']['fingerprint'][:16]}",
        *(f"  {file['sha256'][:16]}  {file['path']}" for file in files[:SHOWN]),
        *_count_rest(files, "  and {} more (--json lists all)"),
    ]
    if others := sorted({checkpoint.seed for checkpoint in checkpoints} - {*facts["seeds"]}):
        shown, more = (", ".join(map(str, seeds)) for seeds in (facts["seeds"], others))
        lines.append(f"  the number is of seed {shown}, its reliability also of {more}")
    metadata = {file["path"]: file["metadata"] for file in files}
    keys = ["dtype", "plan_hash", "versions"]
    keys += ["model"] if any(known.get("model") for known in metadata.values()) else []
    units = {name: unit for name, unit in facts["units"].items() if name.startswith("score/") and unit}
    return [*lines, *_shared(keys, metadata), *_shared(("git_commit", "hardware"), units or {"": {}})]


def _trainings(facts: Facts) -> list[str]:
    trained = {name: run for name, run in facts["runs"].items() if run["done"] or run["config"] or run["command"]}
    if not trained:
        return ["", "Training", "  no run folders are here: the scores came from elsewhere"]
    lines = ["", f"Training: {len(trained)} runs", *_shared(("command", "git_commit"), trained)]
    if any(str(run["git_commit"]).endswith("-dirty") for run in trained.values()):
        lines.append(f"    -dirty: files differed from that commit; how is {UNKNOWN}")
    lines += _shared(("hardware", "processes", "python", "packages"), trained)
    configs = {name: {"config": run["config"] and "config.yaml in the folder of each"} for name, run in trained.items()}
    lines += _shared(("config",), configs)
    if parents := [run["parent"] for run in trained.values() if run["parent"]]:
        proven = sum(bool(parent["is_export_of_pt"]) for parent in parents)
        text = f"{proven} of {len(parents)} fine-tunings began with an export of their own pt"
        lines.append(_line("parents", text))
    return lines


def _data(facts: Facts) -> list[str]:
    sources: dict[str, set[str]] = defaultdict(set)
    manifests: dict[str, set[str]] = defaultdict(set)
    tokenizers = {file["metadata"].get("tokenizer_sha256") for file in facts["scores"]["files"]}
    for run in facts["runs"].values():
        known = run["data"] or {}
        tokenizers.add(known.get("tokenizer"))
        for source, sha in known.get("sources", {}).items():
            sources[source].add(sha)
        if known.get("sft"):
            sources["SFT set"].add(known["sft"])
        for path, sha in (run["manifests"] or {}).items():
            manifests[path].add(sha)
    return [
        "",
        "Data",
        _line("tokenizer", _hashes(tokenizers - {None, ""}) or UNKNOWN),
        *(_line(name, f"tokens {_hashes(shas)}") for name, shas in sorted(sources.items())),
        _line("manifests", "below the data folder" if manifests else UNKNOWN),
        *(f"    {_hashes(shas)}  {path}" for path, shas in sorted(manifests.items())),
    ]


def _units(facts: Facts) -> list[str]:
    kinds: dict[str, dict[str, Facts | None]] = defaultdict(dict)
    for name, record in facts["units"].items():
        kinds[name.partition("/")[0]][name] = record
    lines = ["", "Units"] if kinds else []
    for kind, units in kinds.items():
        known = {name: record for name, record in units.items() if record}
        lines.append(_line(kind, _describe_units(known, len(units) - len(known)) if known else UNKNOWN))
        kept = [f"{name}: {'; '.join(record['kept'])}" for name, record in known.items() if record["kept"]]
        lines += [f"    kept although changed: {line}" for line in kept[:SHOWN]]
    return lines


def _describe_units(known: Mapping[str, Facts], unrecorded: int) -> str:
    """How many units of a kind there are, how long and where they ran, and whether their code is still the same."""
    begun = sorted(record["started"].removesuffix("+00:00") for record in known.values())
    span = begun[0] if begun[0] == begun[-1] else f"{begun[0]} to {begun[-1]}"
    hosts = ", ".join(sorted({record["host"] for record in known.values()}))
    total = clock(sum(record["seconds"] for record in known.values()))
    changed = sorted({room for record in known.values() for room in record["code_changed_since"]})
    code = f"; since then changed: code of {', '.join(changed)}" if changed else "; by the code that is here"
    rest = f"; of {unrecorded} {UNKNOWN}" if unrecorded else ""
    return f"{len(known)} in {total} on {hosts}, begun {span} UTC{code}{rest}"


def _line(label: str, text: str) -> str:
    return f"  {label:<{LABEL}} {text}"


def _count_rest(listed: Sequence[Any], line: str) -> list[str]:
    """The line below a list of which only `SHOWN` are shown; line: with {} for the number of the others."""
    return [line.format(len(listed) - SHOWN)] if len(listed) > SHOWN else []


def _shared(keys: Iterable[str], records: Mapping[str, Facts]) -> list[str]:
    """Lines with the commonest value of each key, then the records that have another."""
    lines = []
    for key in keys:
        values = {name: _format_value(record.get(key)) for name, record in records.items()}
        (common, _), *others = Counter(values.values()).most_common()
        lines.append(_line(key.replace("_", " "), common))
        for other, _ in others[:SHOWN]:
            names = [name for name, value in values.items() if value == other]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"    but {', '.join(names[:3])}{more}: {other}")
        lines += _count_rest(others, "    and {} other values")
    return lines


def _format_value(value: Any) -> str:
    if value is None or value == "" or value == {}:
        return UNKNOWN
    if isinstance(value, str) and value.startswith("{"):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {found}" for name, found in value.items())
    return str(value)


def _hashes(shas: Iterable[str]) -> str:
    return ", ".join(sorted(str(sha)[:16] for sha in shas))
