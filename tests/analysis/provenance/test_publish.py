"""A study as a zip: the round trip, what it does not tell, and zips that must not be believed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from finished_study import HOST, Finished, record, write_finished
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.figures.loss import loss_curves
from analysis.panel import archive
from analysis.panel.archive import unpack
from analysis.panel.load import load_panel
from analysis.provenance.publish import publish
from analysis.provenance.redact import Redaction
from analysis.report.page import build_report
from configs.artifacts import read_json, sha256_file
from configs.errors import ArtifactError, ConfigError, MagicError, ResourceError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import PAPER_MIXTURES, load_study
from configs.workflow.units import study_units

Parts = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return write_finished(tmp_path_factory.mktemp("made"), mixtures=list(PAPER_MIXTURES[:3]))


@pytest.fixture(scope="module")
def zipped(made: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("zip") / "tiny.zip"
    publish(StudyFolder(made.runs, "tiny"), made.units, out, made.data)
    return out


def tables(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "analysis.tables", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300)


def test_another_person_recomputes_every_table_with_one_command(zipped: Path) -> None:
    done = tables("--study", str(zipped))
    assert done.returncode == 0, done.stderr
    assert "every file is what its manifest says" in done.stdout
    assert "metrics recomputed from the scores: identical to the published" in done.stdout
    compared = re.search(r"tables recomputed: (\d+) of (\d+) identical to the published\n", done.stdout)
    assert compared and compared[1] == compared[2] and int(compared[1]) > 20 and "Table 5." in done.stdout


def test_published_twice_the_same_bytes_and_what_was_published_is_the_study(
    made: Finished, zipped: Path, tmp_path: Path
) -> None:
    publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "again.zip", made.data)
    assert sha256_file(tmp_path / "again.zip") == sha256_file(zipped)
    assert unpack(zipped, tmp_path) == StudyFolder(tmp_path, "tiny")
    manifest = read_json(tmp_path / "tiny/manifest.json")
    assert manifest["synthetic"] and manifest["trained_by"] == {"1" * 40: 6} and manifest["not_done"] == []
    files = {p.relative_to(tmp_path / "tiny").as_posix() for p in (tmp_path / "tiny").rglob("*") if p.is_file()}
    assert files == set(manifest["files"]) | {"manifest.json"}
    assert not [name for name in files if "safetensors" in name or "checkpoints/" in name or name.endswith(".log")]
    for path in made.folder.glob("scores/**/*.parquet"):
        assert sha256_file(tmp_path / "tiny" / path.relative_to(made.folder)) == sha256_file(path)
    build_report(StudyFolder(made.runs, "tiny"))
    for name in ("metrics.parquet", "report/tables/table5.csv", "report/tables/early.csv", "report/figures/loss.svg"):
        assert sha256_file(tmp_path / "tiny" / name) == sha256_file(made.folder / name), name
    curves = [loss_curves(load_panel(StudyFolder(runs, "tiny"))) for runs in (made.runs, tmp_path)]
    assert curves[0] == curves[1] and len(curves[0]) == 3


def test_nothing_in_it_tells_whose_machine_it_was(made: Finished, zipped: Path) -> None:
    with zipfile.ZipFile(zipped) as opened:
        everything = {name: opened.read(name) for name in opened.namelist()}
        record = json.loads(everything["tiny/units/score/tiny/V1P0/seed0/pt/last.json"])
        origin = json.loads(everything["tiny/tiny/V1P0/seed0/sft-tiny/provenance.json"])
    for name, content in everything.items():
        for secret in (b"alice", HOST.encode(), str(made.runs).encode(), str(PROJECT_ROOT).encode(), b"/home/"):
            assert secret not in content, name
    assert record["host"] == "host1"
    assert origin["command"] == "study.py run PATH/tiny_study.yaml --runs PATH/runs"
    assert origin["parent"]["export"] == "RUNS/tiny/tiny/V1P0/seed0/pt/export/step-0000012"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--runs /home/bob/r/runs --x=/home/bob/r/data/y", "--runs RUNS --x=HOME/r/data/y"),
        ("/home/bob/r/runs2/a b", "HOME/r/runs2/a b"),
        ("/home/bobby/r/runs/a b", "PATH/a b"),
        ("file:///srv/people/eve/x.json,/mnt/nfs/eve", "PATH/x.json,PATH/eve"),
        ("https://host/a/b s3://bucket/key </s> and/or 1/2 ~/x ../a/b https://host/home/bob", None),
        ("/home/bob", "HOME"),
        ("A:/opt/eve/B:/opt/eve/C", "A:PATH/B:PATH/C"),
        ("host7", "host1"),
    ],
)
def test_paths_become_words_and_nothing_else_does(given: str, told: str | None) -> None:
    redaction = Redaction({"RUNS": Path("/home/bob/r/runs"), "HOME": Path("/home/bob")}, ["host7"])
    told = given if told is None else told
    assert redaction.tree({given: [given]}) == {told: [told]}


def test_what_is_not_done_is_named_and_published_only_if_asked(tmp_path: Path) -> None:
    made = write_finished(tmp_path)
    (made.folder / "units/score/tiny/V1P0/seed0/pt/last.json").unlink()
    (made.folder / "units/analyse.json").unlink()  # made anew anyway
    with pytest.raises(ResourceError, match=r"1 units are not done\n  score/tiny/V1P0/seed0/pt/last: missing"):
        publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
    published = publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip", incomplete=True)
    assert published.lacking == ("score/tiny/V1P0/seed0/pt/last: missing",)
    unpack(tmp_path / "x.zip", tmp_path)
    assert read_json(tmp_path / "tiny/manifest.json")["not_done"] == ["score/tiny/V1P0/seed0/pt/last: missing"]

    moved = study_units(load_study(tmp_path / "tiny_study.yaml", {"data.root": "/home/eve/documents"}), made.runs)
    assert publish(StudyFolder(made.runs, "tiny"), moved, tmp_path / "y.zip", incomplete=True).lacking
    with zipfile.ZipFile(tmp_path / "y.zip") as opened:
        manifest = opened.read("tiny/manifest.json")
    assert b"data.root None -> PATH/documents" in manifest and b"eve" not in manifest


def test_a_path_inside_a_score_file_is_refused(tmp_path: Path) -> None:
    made = write_finished(tmp_path)
    path = made.folder / "scores/tiny/V1P0/seed0/pt/step-0000012.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"model": f"{made.runs}/llama"}), path)
    unit = next(unit for unit in made.units if unit.name == "score/tiny/V1P0/seed0/pt/last")
    record(made, unit, made.products.product(unit))
    with pytest.raises(ArtifactError, match="a folder of this machine"):
        publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_scores_that_have_gone_or_changed_since_they_were_made_are_not_published_unsaid(tmp_path: Path) -> None:
    made = write_finished(tmp_path)
    path = made.folder / "scores/tiny/V1P0/seed0/pt/step-0000012.parquet"
    whole = path.read_bytes()
    pq.write_table(pq.read_table(path).slice(0, 20), path)
    with pytest.raises(ArtifactError, match="altered since score/tiny/V1P0/seed0/pt/last was done"):
        publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip", incomplete=True)
    path.unlink()
    with pytest.raises(ResourceError, match="score/tiny/V1P0/seed0/pt/last: its score file is gone"):
        publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip")
    assert len(publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip", incomplete=True).lacking) == 1
    path.write_bytes(whole)
    assert not publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.zip").lacking
    with pytest.raises(ConfigError, match=r"is a \.zip, not x\.txt"):
        publish(StudyFolder(made.runs, "tiny"), made.units, tmp_path / "x.txt")


def test_scores_of_other_people_are_published_too(tmp_path: Path, study_maker: Callable[..., Path]) -> None:
    study_maker(tmp_path, scales=("mini_s",), mixtures=("V1P0", "V1P1", "V2P0"), benchmarks=("rte", "cb"), n=4)
    publish(StudyFolder(tmp_path, "demo"), [], tmp_path / "demo.zip")
    assert "identical to the published" in tables("--study", str(tmp_path / "demo.zip"), "--table", "5").stdout


# ---------------------------------------------------------------------------------------------- hostile zips


def rewritten(zipped: Path, out: Path, change: Callable[[Parts], None], **form: Any) -> Path:
    """form: of the last file's entry, e.g. external_attr."""
    with zipfile.ZipFile(zipped) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    change(parts)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in parts.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if name == list(parts)[-1]:
                for key, value in form.items():
                    setattr(info, key, value)
            opened.writestr(info, content)
    return out


def listed(parts: Parts, name: str, content: bytes, size: int | None = None) -> None:
    """Add a file that the manifest lists, too."""
    manifest = json.loads(parts["tiny/manifest.json"])
    found = {"bytes": len(content) if size is None else size, "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"][name] = found
    parts["tiny/manifest.json"] = json.dumps(manifest).encode()
    parts[f"tiny/{name}"] = content


def changed_score(parts: Parts) -> None:
    name = next(name for name in parts if name.startswith("tiny/scores/"))
    parts[name] = parts[name][:-9] + b"!" + parts[name][-8:]


def file_and_folder(parts: Parts) -> None:
    listed(parts, "a", b"1")
    listed(parts, "a/b", b"1")


HOSTILE: dict[str, tuple[Callable[[Parts], None], dict[str, Any], str]] = {
    "a changed score": (changed_score, {}, "was changed: its sha256"),
    "a shorter file": (lambda p: p.update({"tiny/study.yaml": b"name: x"}), {}, "has not the"),
    "a file more": (lambda p: p.update({"tiny/extra.py": b"1"}), {}, "holds tiny/extra.py, its manifest"),
    "a file less": (lambda p: p.pop("tiny/study.yaml") and None, {}, "lacks tiny/study.yaml, its manifest"),
    "traversal": (lambda p: listed(p, "../../evil", b"1"), {}, r"holds the name 'tiny/\.\./\.\./evil'"),
    "an absolute name": (lambda p: p.update({"/tmp/evil": b"1"}), {}, "holds the name '/tmp/evil'"),
    "a backslash": (lambda p: listed(p, "..\\evil", b"1"), {}, "holds the name"),
    "a drive": (lambda p: p.update({"C:/evil": b"1"}), {}, "holds the name"),
    "a link": (
        lambda p: listed(p, "link", b"/etc/passwd"),
        {"external_attr": (stat.S_IFLNK | 0o777) << 16},
        "no plain",
    ),
    "a folder": (lambda p: listed(p, "sub/", b""), {}, "holds the name 'tiny/sub/'"),
    "file and folder": (file_and_folder, {}, "as a file and as a"),
    "a bomb": (lambda p: listed(p, "zeros", bytes(300_000_000)), {}, "a decompression bomb"),
    "another format": (lambda p: p.update({"tiny/manifest.json": b'{"format": 99}'}), {}, "not one of this version"),
    "no JSON": (lambda p: p.update({"tiny/manifest.json": b"[" * 100_000}), {}, "not one of this version"),
    "no manifest": (lambda p: p.pop("tiny/manifest.json") and None, {}, "not a published study"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_zip_that_is_not_what_it_says_is_refused_and_leaves_nothing(what: str, zipped: Path, tmp_path: Path) -> None:
    change, form, message = HOSTILE[what]
    bad = rewritten(zipped, tmp_path / "bad.zip", change, **form)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=message):
        unpack(bad, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "evil").exists()


def test_what_inflates_beyond_its_header_is_stopped_there(
    zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header and the manifest agree on 10 bytes, the data holds 50 million."""
    bad = rewritten(zipped, tmp_path / "bad.zip", lambda p: listed(p, "zeros", bytes(50_000_000), size=10))
    monkeypatch.setattr(archive, "_check_sizes", lambda *_: None)
    read: list[int] = []
    monkeypatch.setattr(archive, "BLOCK", 1000)
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: read.append(n) or original(self, n))
    with pytest.raises(ArtifactError, match="inflates beyond its 10 bytes"):
        unpack(bad, tmp_path)
    assert read[-1] == 11


SMALL: Parts = {"study.yaml": b"name: tiny\n" * 5, "scores/a.parquet": bytes(range(200)), "x.html": b"<p>hello" * 20}


def small_zip(manifest: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("tiny/manifest.json", json.dumps(manifest))
        for name, content in SMALL.items():
            opened.writestr(f"tiny/{name}", content)
    return out.getvalue()


FILES = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in SMALL.items()}
WHOLE = small_zip({"format": 1, "study": "tiny", "files": FILES})


def believed(content: bytes) -> bool:
    """Whether it was unpacked, to exactly what it should be; if not, with a message and nothing left."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "x.zip", Path(folder) / "out"
        path.write_bytes(content)
        out.mkdir()
        try:
            unpack(path, out)
        except MagicError:
            assert not list(out.iterdir())
            return False
        assert all((out / "tiny" / name).read_bytes() == content for name, content in SMALL.items())
        return True


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), max_size=4), st.integers(0, 30))
def test_any_bytes_of_a_zip_may_be_changed(changes: dict[int, int], cut: int) -> None:
    content = bytearray(WHOLE)
    for place, byte in changes.items():
        content[place] = byte
    whole = believed(bytes(content[: len(content) - cut]))
    assert whole or changes or cut


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@example("format", True)
@given(st.sampled_from(["format", "study", "files", "entry", "bytes", "sha256", "all"]), JSON)
def test_any_manifest_but_the_right_one_is_refused(key: str, value: Any) -> None:
    manifest: Any = json.loads(json.dumps({"format": 1, "study": "tiny", "files": FILES}))
    right = json.dumps(manifest, sort_keys=True)
    entries = manifest["files"]
    if key == "all":
        manifest = value
    elif key == "entry":
        entries["study.yaml"] = value
    elif key in ("bytes", "sha256"):
        entries["study.yaml"][key] = value
    else:
        manifest[key] = value
    assert believed(small_zip(manifest)) == (json.dumps(manifest, sort_keys=True) == right)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", bytes(1000)])
def test_what_is_no_zip_gets_a_message(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    done = tables("--study", str(tmp_path / "x.zip"))
    assert done.returncode == 2 and "not a readable zip" in done.stderr and "Traceback" not in done.stderr


def test_a_name_twice_and_a_folder_that_is_there_are_refused(zipped: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.zip"
    twice.write_bytes(zipped.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(twice, "a") as opened:
        opened.writestr("tiny/study.yaml", b"name: x")
    with pytest.raises(ArtifactError, match=r"holds tiny/study.yaml twice"):
        unpack(twice, tmp_path)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(ArtifactError, match="is there already"):
        unpack(zipped, tmp_path)


def test_metrics_that_do_not_follow_from_the_scores_are_said_to(zipped: Path, tmp_path: Path) -> None:
    unpack(zipped, tmp_path)
    path = tmp_path / "tiny/metrics.parquet"
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame.loc[0, "value"] += 0.25
    pq.write_table(table.from_pandas(frame, table.schema), path)
    said = archive.recompute_metrics(StudyFolder(tmp_path, "tiny"))
    assert "NOT the published bytes" in said and "0 are on one side only, 1 differ, at most by 0.25" in said
