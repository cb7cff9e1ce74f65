"""A study as one zip beside a paper: scores, metrics, report, resolved configs and provenance, without any weights.

In: <runs>/<study>, and the manifests of its data where they are here. Out: what `analysis.panel.archive` reads.
Published twice, the same bytes. Metrics and report are made anew from what is published, so that it is enough to make
them.

Left out: weights, checkpoints, token shards, logs. Changed: paths and hosts (`analysis.provenance.redact`); of each
metrics.jsonl the validations stay whole and training is at most 60 means.
"""

from __future__ import annotations

import json
import platform
import shutil
import stat
import tempfile
import textwrap
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from analysis.panel.archive import FORMAT
from analysis.provenance.redact import Redaction
from configs.artifacts import MANIFEST, atomic_file, describe_file, read_json, sha256_file, write_json, write_text
from configs.errors import ArtifactError, ConfigError, ResourceError
from configs.layout import CONFIG_ROOT, PROJECT_ROOT, StudyFolder
from configs.load import dump_yaml, read_yaml
from configs.runtime.versions import git_commit, versions
from configs.workflow.records.leases import study_lock
from configs.workflow.records.products import Products
from configs.workflow.records.records import read_record, states, units_dir
from configs.workflow.units import Unit

PACKAGES = ("numpy", "pandas", "pyarrow", "scipy")
"""Packages whose versions may change the last digits of a table."""
RUN = "*/*/seed*/*"
"""Pattern of run folders below the study's: scale / mixture / seed / stage."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""A zip knows no earlier time; all files have it."""
STORED = (".parquet",)
"""Compressed already: deflating a score file of 87,179 examples saves 0.6 %."""
SHOWN = 10
REASON = 200
"""Characters of why a unit is stale: a list of benchmarks has thousands."""


@dataclass(frozen=True)
class Published:
    path: Path
    sizes: dict[str, tuple[int, int, int]]
    """Part -> (files, bytes, bytes in the zip)."""
    replaced: int
    """Paths and hosts."""
    lacking: tuple[str, ...]
    """Units that are not done, with why."""


def publish(
    study: StudyFolder, units: Sequence[Unit], out: Path, data: Path | None = None, incomplete: bool = False
) -> Published:
    """units: of the study, none where nothing but its scores is known; data: where manifests of its shards may lie.

    Raises ResourceError naming units that are missing or stale unless `incomplete`, and ArtifactError for a path of
    this machine where it cannot be taken out.
    """
    if out.suffix != ".zip":
        raise ConfigError(f"a published study is a .zip, not {out.name}", hint=f"--out {out.stem}.zip")
    folder = study.path
    with study_lock(folder):
        lacking = _lacking(folder, units, Products(study, data or folder))
        if lacking and not incomplete:
            more = [f"and {len(lacking) - SHOWN} more"] if len(lacking) > SHOWN else []
            raise ResourceError(
                "\n  ".join([f"{len(lacking)} units are not done", *lacking[:SHOWN], *more]),
                where=folder,
                hint="finish the study, or publish it as it is with --incomplete",
            )
        with tempfile.TemporaryDirectory() as temporary:
            copy = StudyFolder(Path(temporary), study.name)
            staged = copy.path
            redaction = _redaction(folder, data)
            _stage(study, copy, redaction, data)
            _derive(copy)
            files = sorted(path for path in staged.rglob("*") if path.is_file())
            _check_no_path(files, redaction)
            about = _about(staged, study.name, units, redaction.tree(lacking))
            described = {path.relative_to(staged).as_posix(): describe_file(path) for path in files}
            with atomic_file(out) as stream:
                sizes = _write(stream, study.name, staged, about | {"files": described})
    return Published(out, sizes, redaction.replaced, tuple(lacking))


def format_published(published: Published) -> str:
    """The text that `study.py publish` prints."""
    rows = [(part, *sizes) for part, sizes in published.sizes.items()]
    rows.append(("all", *(sum(column) for column in zip(*published.sizes.values(), strict=True))))
    lines = [
        f"  {part:<12}{count:>7,} files{size / 1e6:>10,.2f} MB{packed / 1e6:>10,.2f} MB packed"
        for part, count, size, packed in rows
    ]
    return "\n".join(
        [
            str(published.path),
            *lines,
            f"{published.replaced:,} paths and hosts were replaced by words",
            *([f"INCOMPLETE: {len(published.lacking)} units are not done"] if published.lacking else []),
            *(
                []
                if "data" in published.sizes
                else ["no manifest of the data that the runs read is there; give --data"]
            ),
            f"to verify and recompute it: python -m analysis.tables --study {published.path}",
        ]
    )


def _lacking(folder: Path, units: Sequence[Unit], products: Products) -> list[str]:
    """Units that are not done, or whose scores have gone, and why; but `analyse`, which is done here.

    Raises ArtifactError for a score file that is no longer the one which its record names.
    """
    found = {name: state for name, state in states(folder, units).items() if name != "analyse"}
    lines = [
        f"{name}: {state.kind}" + (f" ({textwrap.shorten('; '.join(state.reasons), REASON)})" if state.reasons else "")
        for name, state in found.items()
        if state.kind != "done"
    ]
    for unit in units:
        record = read_record(folder, unit.name) if unit.kind == "score" else None
        if record is not None and found[unit.name].kind == "done" and not products.intact(unit, record.product, ()):
            lines.append(f"{unit.name}: its score file is gone")
    return lines


def _redaction(folder: Path, data: Path | None) -> Redaction:
    begun = folder / "study.json"
    documents = read_json(begun).get("documents_root") if begun.is_file() else None
    hosts = [read_json(path).get("host", "") for path in units_dir(folder).rglob("*.json")]
    known = {"RUNS": folder.parent, "DATA": data, "DOCUMENTS": Path(documents) if documents else None}
    return Redaction(known | {"PROJECT": PROJECT_ROOT, "HOME": Path.home()}, filter(None, hosts))


# ---------------------------------------------------------------------------------------------- what goes in


def _stage(study: StudyFolder, copy: StudyFolder, redaction: Redaction, data: Path | None) -> None:
    """Copy everything but metrics and report; score files become links, which saves their size."""
    folder, staged = study.path, copy.path
    staged.mkdir(parents=True)
    for path in sorted(study.scores.rglob("*.parquet")):
        if not path.name.startswith("."):
            link = staged / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    if study.metrics.is_file() and not copy.scores.is_dir():
        shutil.copyfile(study.metrics, copy.metrics)  # given, not derived
    for name in ("study.yaml", "declared.json"):
        if (folder / name).is_file():
            _copy(folder / name, staged / name, redaction)
    for path in sorted(units_dir(folder).rglob("*.json")):
        _copy(path, staged / path.relative_to(folder), redaction)
    for run in sorted(folder.glob(RUN)):
        for path in (run / "config.yaml", run / "provenance.json", run / "DONE", *run.glob("export/*/export.json")):
            if path.is_file():
                _copy(path, staged / path.relative_to(folder), redaction)
        if (run / "metrics.jsonl").is_file():
            lines = "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in _small(run / "metrics.jsonl"))
            write_text(staged / run.relative_to(folder) / "metrics.jsonl", lines)
    for name, path in _beside(staged, data):
        _copy(path, staged / name, redaction)


def _copy(path: Path, to: Path, redaction: Redaction) -> None:
    if path.suffix == ".yaml":
        write_text(to, dump_yaml(redaction.tree(read_yaml(path))))
    else:
        write_json(to, redaction.tree(read_json(path)))


def _small(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a metrics.jsonl from which the report draws the same loss curve."""
    from analysis.figures.loss import binned
    from analysis.panel.held_out import read_lines

    lines = read_lines(path)
    yield from binned(lines)
    yield from (line for line in lines if line.get("validation"))


def _beside(staged: Path, data: Path | None) -> Iterator[tuple[str, Path]]:
    """(name, file) of the mixtures' weights, and of manifests of data that are still what the runs read."""
    mixtures = {path.parents[2].name for path in staged.glob(f"{RUN}/config.yaml")}
    for mixture in sorted(mixtures):
        path = CONFIG_ROOT / "mixtures" / f"{mixture}.yaml"
        if path.is_file():
            yield f"configs/mixtures/{path.name}", path
    read: dict[str, str] = {}
    for path in sorted(staged.glob(f"{RUN}/provenance.json")):
        read |= read_json(path).get("manifests") or {}
    for name, sha in sorted(read.items()):
        if data is not None and (data / name).is_file() and sha256_file(data / name) == sha:
            yield f"data/{name}", data / name


def _derive(study: StudyFolder) -> None:
    """Metrics and report of what is staged. Raises ArtifactError where scores are damaged or not there."""
    from analysis.report.page import build_report

    build_report(study)
    study.answers.unlink(missing_ok=True)  # derived, and as large as the scores


def _check_no_path(files: Sequence[Path], redaction: Redaction) -> None:
    import pyarrow.parquet as pq

    for path in files:
        if path.suffix == ".parquet":
            text = "\n".join(
                value.decode(errors="replace")
                for key, value in (pq.read_schema(path).metadata or {}).items()
                if not key.startswith(b"ARROW:")
            )
        else:
            text = path.read_text(encoding="utf-8")
        if named := redaction.found_in(text):
            raise ArtifactError(
                f"names {named}, a folder of this machine, where it cannot be replaced",
                where=path.name,
                hint="take it out of the study's description, or score the model again by a name that is no path",
            )


def _about(staged: Path, study: str, units: Sequence[Unit], lacking: Sequence[str]) -> dict[str, Any]:
    """The manifest but for its files."""
    origins = [read_json(path) for path in sorted(staged.glob(f"{RUN}/provenance.json"))]
    commits = Counter(str(origin.get("git_commit")) for origin in origins)
    declared = staged / "study.yaml"
    kind = read_yaml(declared)["data"]["kind"] if declared.is_file() else None
    return {
        "format": FORMAT,
        "study": study,
        "synthetic": kind == "microworld" or (staged / "declared.json").is_file(),
        "trained_by": dict(sorted(commits.items())),
        "made_by": {
            "git_commit": git_commit(),
            "versions": {"python": platform.python_version()} | versions(PACKAGES),
        },
        "units": len(units),
        "not_done": list(lacking),
    }


# ---------------------------------------------------------------------------------------------- the zip


def _write(stream: IO[bytes], study: str, staged: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """The manifest, then its files by name; returns sizes by part."""
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False).encode()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry(f"{study}/{MANIFEST}"), text, compresslevel=9)
        for name, size in manifest["files"].items():
            entry = _entry(f"{study}/{name}", size["bytes"])
            with (staged / name).open("rb") as source, archive.open(entry, "w") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        parts: dict[str, list[zipfile.ZipInfo]] = {}
        for info in archive.infolist():
            first = info.filename.split("/")[1]
            named = first.partition(".")[0] if first in (MANIFEST, "metrics.parquet") else first
            known = named if named in ("scores", "report", "metrics", "units", "data") else "runs, configs"
            parts.setdefault(known, []).append(info)
    return {
        part: (len(infos), sum(i.file_size for i in infos), sum(i.compress_size for i in infos))
        for part, infos in parts.items()
    }


def _entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.file_size = size  # beyond 2 GiB, another form of header
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith(STORED) else zipfile.ZIP_DEFLATED
    return info
