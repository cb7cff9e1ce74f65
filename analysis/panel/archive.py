"""A published study: one zip whose manifest.json says what every file must be, read without trusting any of it.

In: a zip that `analysis.provenance.publish` wrote, from anywhere. Out: its folder, once every name is harmless and
every file has its size and sha256; else an ArtifactError, and nothing is left behind. What was published as metrics and
tables is then held against what the scores give here.

    <study>/manifest.json       format, study, commits, versions, every file's bytes and sha256
    <study>/scores/**/*.parquet, metrics.parquet, report/, study.yaml, declared.json, units/**/*.json
    <study>/<scale>/<mixture>/seed<k>/<stage>/    config.yaml provenance.json metrics.jsonl DONE
    <study>/configs/mixtures/*.yaml, data/**/manifest.json
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.scores.metrics import write_metrics
from analysis.scores.score_files import score_files
from configs.artifacts import MANIFEST, atomic_folder
from configs.errors import ArtifactError, MagicError, ResourceError
from configs.layout import StudyFolder
from configs.metrics import KEYS

FORMAT = 1
LARGEST_MANIFEST = 64_000_000
"""Bytes; 72 checkpoints need 100,000."""
LARGEST_RATIO = 100
"""Unpacked over packed bytes; a study has 2 to 10, a bomb a thousand."""
BLOCK = 1 << 20


@contextlib.contextmanager
def study_at(given: str, runs: Path) -> Iterator[StudyFolder]:
    """The study of a name below `runs`, of the path of its folder, or of a published zip, which is unpacked meanwhile.

    Raises ArtifactError where it is not there or cannot be believed.
    """
    if given.endswith(".zip"):
        with tempfile.TemporaryDirectory() as folder:
            yield unpack(Path(given), Path(folder))
    else:
        yield StudyFolder.find(given, runs)


def unpack(path: Path, folder: Path) -> StudyFolder:
    """Verify a published zip and unpack it as <folder>/<study>.

    Raises ArtifactError naming the first file that is not what the manifest says, and where <folder>/<study> exists.
    """
    if not path.is_file():
        raise ArtifactError("no such file", where=path, valid="a zip that study.py publish wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            infos = _checked_names(path, archive)
            study, files, manifest = _read_manifest(path, archive, infos)
            _check_sizes(path, folder, infos, study, files)
            if (folder / study).exists():
                raise ArtifactError("is there already", where=folder / study, hint="another folder")
            with atomic_folder(folder / study) as temporary:
                for name, entry in files.items():
                    _extract(path, archive, infos[f"{study}/{name}"], entry, temporary / name)
                (temporary / MANIFEST).write_bytes(manifest)
    except MagicError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which an impossible offset gives
            raise
        raise ArtifactError(f"not a readable zip ({error})", where=path, hint="fetch it again") from None
    return StudyFolder(folder, study)


def _checked_names(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip by name. Raises ArtifactError for a name that leads out, comes twice or is no plain file."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not _is_harmless(name):
            raise ArtifactError(f"holds the name {name!r}", where=path, valid="<study>/<file>, nothing else")
        if name in infos:
            raise ArtifactError(f"holds {name} twice", where=path)
        plain = kind in (0, stat.S_IFREG) and not info.is_dir() and not info.flag_bits & 1
        if not plain or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArtifactError(f"{name} is no plain file (a link, encrypted, oddly compressed)", where=path)
        infos[name] = info
    folders = {str(parent) for name in infos for parent in PurePosixPath(name).parents}
    if both := sorted(folders & set(infos)):
        raise ArtifactError(f"holds {both[0]} as a file and as a folder", where=path)
    return infos


def _is_harmless(name: str) -> bool:
    """Whether a name in a zip is <study>/<file> and cannot lead out of the folder on any system."""
    pure = PurePosixPath(name)
    inside = name == str(pure) and not pure.is_absolute() and ".." not in pure.parts and len(pure.parts) > 1
    return inside and name.isprintable() and "\\" not in name and ":" not in name


def _read_manifest(
    path: Path, archive: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo]
) -> tuple[str, dict[str, dict[str, Any]], bytes]:
    """(study, entries of its files, the manifest itself). Raises ArtifactError for one that is not of this format."""
    found = [name for name in infos if PurePosixPath(name).parts[1:] == (MANIFEST,)]
    if len(found) != 1:
        raise ArtifactError("not a published study: no <study>/manifest.json", where=path)
    if infos[found[0]].file_size > LARGEST_MANIFEST:
        raise ArtifactError(f"{found[0]} is larger than {LARGEST_MANIFEST:,} bytes", where=path)
    with archive.open(infos[found[0]]) as stream:
        text = stream.read(LARGEST_MANIFEST + 1)
    try:
        study, files = _parse_manifest(text, found[0])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        problem = "its manifest.json is not one of this version"
        raise ArtifactError(problem, where=path, valid=f"format {FORMAT}") from None
    listed, there = {f"{study}/{name}" for name in files}, set(infos) - {found[0]}
    if different := sorted(listed ^ there):
        which = "holds" if different[0] in there else "lacks"
        raise ArtifactError(f"{which} {different[0]}, its manifest says otherwise", where=path)
    return study, files, text


def _parse_manifest(text: bytes, name: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """(study, entries of its files). Raises ValueError or what a wrong type raises for another manifest."""
    manifest = json.loads(text)
    study, files, version = manifest["study"], manifest["files"], manifest["format"]
    # True == 1 in Python: the types are compared too.
    if type(version) is not int or version != FORMAT or name != f"{study}/{MANIFEST}" or study.startswith("."):
        raise ValueError("another format or another study")
    if not all(type(e["bytes"]) is int and re.fullmatch("[0-9a-f]{64}", e["sha256"]) for e in files.values()):
        raise ValueError("an entry without size or sha256")
    return study, files


def _check_sizes(
    path: Path, folder: Path, infos: dict[str, zipfile.ZipInfo], study: str, files: dict[str, dict[str, Any]]
) -> None:
    for name, entry in files.items():
        if infos[f"{study}/{name}"].file_size != entry["bytes"]:
            raise ArtifactError(f"{name} has not the {entry['bytes']:,} bytes of the manifest", where=path)
    total, packed = sum(entry["bytes"] for entry in files.values()), path.stat().st_size
    if total > LARGEST_RATIO * packed:
        raise ArtifactError(f"{packed:,} bytes would unpack to {total:,}: a decompression bomb", where=path)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise ResourceError(f"{total / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB are free", where=folder)


def _extract(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: dict[str, Any], to: Path) -> None:
    """No byte more than the manifest says is inflated. Raises ArtifactError where the content is another."""
    to.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry["bytes"]
    with archive.open(info) as source, to.open("xb") as out:
        while block := source.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ArtifactError(f"{info.filename} inflates beyond its {entry['bytes']:,} bytes", where=path)
            digest.update(block)
            out.write(block)
    if left or digest.hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{info.filename} was changed: its sha256 is not the manifest's", where=path)


# ---------------------------------------------------------------------------------------------- the same numbers here?


def recompute_metrics(study: StudyFolder) -> str:
    """Derive an unpacked study's metrics.parquet from its scores anew, and describe how the published one differs."""
    path = study.metrics
    if not score_files(study):
        return "metrics as published: there are no scores to recompute them from"
    before = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if write_metrics(study).read_bytes() == before:
        return "metrics recomputed from the scores: identical to the published"
    keys = [*KEYS, "metric", "normalisation"]
    try:
        published = pq.read_table(io.BytesIO(before)).to_pandas()[[*keys, "value"]]
    except (pa.ArrowException, OSError, KeyError):
        return "metrics computed from the scores: there are none published that can be read"
    both = pq.read_table(path).to_pandas().merge(published, on=keys, how="outer", suffixes=("", "_published"))
    gap = (both["value"] - both["value_published"]).abs()
    unmatched, largest = int(gap.isna().sum()), float(gap.max())
    return (
        f"metrics recomputed from the scores: NOT the published bytes; of {len(both):,} values {unmatched:,} are on "
        f"one side only, {int((gap > 0).sum()):,} differ, at most by {largest:.2g}"
    )
