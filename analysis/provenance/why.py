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

from analysis.provenance.lookup import METRICS, find_rows, find_table, metrics_sheet, row_scope
from analysis.provenance.origins import Facts, checkpoint_of, find_doubts, runs_behind, score_files_behind, units_behind
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
    from analysis.panel.load import load_panel
    from analysis.rendering.table import Sheet, Table
    from analysis.tables.catalogue import build_tables
    from analysis.tables.settings import MAKERS as SETTINGS
    from analysis.tables.settings import settings_tables

    name, folder = find_table(table), study.path
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
    found = find_rows(made, words, scores)
    first = found.rows[0]
    cells = {scores[first]} if name == METRICS else set().union(*panel.cells_behind(row_scope(made, first)))
    files = score_files_behind(study, cells)
    trained = runs_behind(folder, files)
    units = units_behind(folder, files, trained) if files else {}
    return {
        "study": study.name,
        "synthetic": panel.synthetic,
        "table": {"name": made.name, "title": made.title},
        "column": found.column,
        "rows": [{"keys": found.keys(i), "shown": found.cells(i)} | _exactly(made, i) for i in found.rows],
        "seeds": list(panel.seeds) if name == METRICS or panel.average_seeds else [panel.seeds[0]],
        "scores": {"fingerprint": scores[first], "files": files},
        "runs": trained,
        "units": units,
        "study.yaml": sha256_file(study.config) if study.config.is_file() else None,
        "doubts": find_doubts(files, trained, units),
        "commands": commands(study, name, trained, archive),
    }


def _exactly(table: Any, row: int) -> Facts:
    from analysis.rendering.table import Table

    if not isinstance(table, Table):
        return {}
    estimate, paper = table.rows[row].estimate, table.rows[row].paper
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n, "paper": paper}


def commands(study: StudyFolder, table: str, runs: Mapping[str, Facts], archive: str | None) -> list[tuple[str, str]]:
    """(command, what it makes), from the data to the number."""
    from analysis.scores.score_files import score_files

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
    return "\n".join(
        [
            *_number(facts),
            *_scores(facts),
            *_trainings(facts),
            *_data(facts),
            *_units(facts),
            *(["", "Doubts", *(f"  {line}" for line in facts["doubts"])] if facts["doubts"] else []),
            "",
            "Made again by",
            *(f"  {command}   # {makes}" for command, makes in facts["commands"]),
        ]
    )


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
    if len(facts["rows"]) > SHOWN:
        lines.append(f"  and {len(facts['rows']) - SHOWN} more rows of the same score files")
    return lines


def _scores(facts: Facts) -> list[str]:
    files = facts["scores"]["files"]
    if not files:
        return ["", "Scores", "  no score files are here: the metrics were given, or published without them"]
    places = {checkpoint_of(checkpoint) for file in files for checkpoint in file["checkpoints"]}
    size = sum(file["bytes"] for file in files)
    lines = [
        "",
        f"Scores: {len(files)} files, {size / 1e6:,.1f} MB, {len(places)} checkpoints; "
        f"fingerprint {facts['scores']['fingerprint'][:16]}",
        *(f"  {file['sha256'][:16]}  {file['path']}" for file in files[:SHOWN]),
        *([f"  and {len(files) - SHOWN} more (--json lists all)"] if len(files) > SHOWN else []),
    ]
    if others := sorted({place.seed for place in places} - {*facts["seeds"]}):
        shown, more = (", ".join(map(str, seeds)) for seeds in (facts["seeds"], others))
        lines.append(f"  the number is of seed {shown}, its reliability also of {more}")
    return lines + _scoring(files, facts["units"])


def _scoring(files: Sequence[Facts], units: Mapping[str, Facts | None]) -> list[str]:
    """How the models were scored, as the score files and the units' records say."""
    lines = []
    for key in ("dtype", "plan_hash", "versions", "model"):
        values = {file["path"]: file["metadata"].get(key) for file in files}
        if key != "model" or any(values.values()):
            lines += _shared(key.replace("_", " "), values)
    made = {name: record for name, record in units.items() if name.startswith("score/") and record}
    for key in ("git_commit", "hardware"):
        lines += _shared(key.replace("_", " "), {name: record[key] for name, record in made.items()} or {"": None})
    return lines


def _trainings(facts: Facts) -> list[str]:
    trained = {name: run for name, run in facts["runs"].items() if run["done"] or run["config"] or run["command"]}
    if not trained:
        return ["", "Training", "  no run folders are here: the scores came from elsewhere"]
    lines = ["", f"Training: {len(trained)} runs"]
    for key in ("command", "git_commit", "hardware", "processes", "python", "packages"):
        lines += _shared(key.replace("_", " "), {name: run[key] for name, run in trained.items()})
        if key == "git_commit" and any(str(run[key]).endswith("-dirty") for run in trained.values()):
            lines.append(f"    -dirty: files differed from that commit; how is {UNKNOWN}")
    lines += _shared("config", {n: run["config"] and "config.yaml in the folder of each" for n, run in trained.items()})
    return lines + _parents([run["parent"] for run in trained.values() if run["parent"]])


def _parents(parents: Sequence[Facts]) -> list[str]:
    proven = sum(bool(parent["is_export_of_pt"]) for parent in parents)
    words = f"{proven} of {len(parents)} fine-tunings began with an export of their own pt"
    return [_line("parents", words)] if parents else []


def _data(facts: Facts) -> list[str]:
    sources: dict[str, set[str]] = defaultdict(set)
    manifests: dict[str, set[str]] = defaultdict(set)
    tokenizers = {file["metadata"].get("tokenizer_sha256") for file in facts["scores"]["files"]}
    for run in facts["runs"].values():
        known = run["data"] or {}
        for source, sha in known.get("sources", {}).items():
            sources[source].add(sha)
        for name in ("sft", "tokenizer"):
            if known.get(name):
                (tokenizers if name == "tokenizer" else sources["SFT set"]).add(known[name])
        for path, sha in (run["manifests"] or {}).items():
            manifests[path].add(sha)
    lines = ["", "Data", _line("tokenizer", _hashes(tokenizers - {None}) or UNKNOWN)]
    lines += [_line(name, f"tokens {_hashes(shas)}") for name, shas in sorted(sources.items())]
    if not manifests:
        return [*lines, _line("manifests", UNKNOWN)]
    return [*lines, _line("manifests", "below the data folder"), *_listed(manifests)]


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


def _line(label: str, words: str) -> str:
    return f"  {label:<{LABEL}} {words}"


def _listed(manifests: Mapping[str, set[str]]) -> list[str]:
    return [f"    {_hashes(shas)}  {path}" for path, shas in sorted(manifests.items())]


def _shared(label: str, values: Mapping[str, Any]) -> list[str]:
    """The commonest value once, then who has another."""
    words = {name: _words(value) for name, value in values.items()}
    (common, _), *others = Counter(words.values()).most_common()
    lines = [_line(label, common)]
    for value, _ in others[:SHOWN]:
        names = [name for name, found in words.items() if found == value]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"    but {', '.join(names[:3])}{more}: {value}")
    return [*lines, *([f"    and {len(others) - SHOWN} other values"] if len(others) > SHOWN else [])]


def _words(value: Any) -> str:
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
