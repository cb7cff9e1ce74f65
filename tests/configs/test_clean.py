"""What of a finished study may go: nothing it needs, nothing outside it; afterwards it is as finished as before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_study import Finished, write_finished

from configs.artifacts import read_json, sha256_file, size_bytes, write_json, write_text
from configs.errors import ArtifactError, ResourceError
from configs.layout import PROJECT_ROOT
from configs.workflow import clean as module
from configs.workflow.clean import clean, removals
from configs.workflow.records.leases import hold_lease, study_lock
from configs.workflow.records.records import read_record, states

BLEND = "b" * 64  # as the records of finished_study have it


@pytest.fixture
def made(tmp_path: Path) -> Finished:
    made = write_finished(tmp_path)
    write_text(made.folder / "plans/plan-0.npz", "compiled")
    for blend in (BLEND, "c" * 64):  # the second is another study's
        write_text(made.data / "index" / blend / "order.npy", "order")
    return made


def snapshot(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def kinds(made: Finished, **options: bool) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for removal in removals(made.folder, made.units, made.data, **options):
        root = made.data if removal.kind == "index" else made.folder
        found.setdefault(removal.kind, set()).add(removal.path.relative_to(root).as_posix())
        assert removal.bytes == size_bytes(removal.path) > 0
    return found


def command(made: Finished, *more: str) -> subprocess.CompletedProcess[str]:
    place = ["--runs", str(made.runs), "--data", str(made.data)]
    call = [sys.executable, str(PROJECT_ROOT / "study.py"), *more, *place]
    return subprocess.run(call, capture_output=True, text=True, timeout=300)


def test_after_it_the_study_is_as_finished_as_before(made: Finished) -> None:
    before = snapshot(made.runs.parent)
    listed = command(made, "clean", "tiny", "--exports")
    assert listed.returncode == 0 and "--yes removes it" in listed.stdout, listed.stderr
    assert snapshot(made.runs.parent) == before
    assert "--resume STEP cannot go back" in listed.stdout and "checkpoints" in listed.stdout

    assert " removed\n" in command(made, "clean", "tiny", "--exports", "--yes").stdout
    after = snapshot(made.runs.parent)
    gone = set(before) - set(after)
    assert gone == {
        name
        for name in before
        if "/checkpoints/" in name or "/export/" in name or name.endswith(".log") or "/plans/" in name or BLEND in name
    }
    assert all(after[name] == before[name] for name in after)
    assert {state.kind for state in states(made.folder, made.units).values()} == {"done"}
    for unit in made.units:
        record = read_record(made.folder, unit.name)
        assert record is not None
        assert unit.folder is None or made.products.intact(unit, record.product, waiting=[])
    assert command(made, "clean", "tiny", "--exports").stdout.endswith("nothing to remove\n")


def test_without_exports_they_stay_and_unfinished_trainings_keep_everything(made: Finished) -> None:
    assert kinds(made) == {
        "checkpoints": {f"tiny/{m}/seed0/{s}/checkpoints" for m in ("V1P0", "V2P2") for s in ("pt", "sft-tiny")},
        "plans": {"plans"},
        "index": {f"index/{BLEND}"},
        "logs": {f"units/{unit.name}.log" for unit in made.units},
    }
    (made.folder / "tiny/V1P0/seed0/pt/DONE").unlink()
    assert "tiny/V1P0/seed0/pt/checkpoints" not in kinds(made)["checkpoints"]


def test_an_export_stays_until_it_is_scored_and_fine_tuned(made: Finished) -> None:
    runs = "tiny/V1P0/seed0"
    wanted = {
        f"{runs}/pt/export/step-0000010",
        f"{runs}/pt/export/step-0000012",
        f"{runs}/sft-tiny/export/step-0000010",
    }
    assert wanted < kinds(made, exports=True)["exports"]
    (made.folder / f"units/finetune/{runs}/tiny.json").unlink()  # its parent is the last of pretraining
    mine = {name for name in kinds(made, exports=True)["exports"] if "V1P0" in name}
    assert mine == {f"{runs}/pt/export/step-0000010"}  # that of SFT is no longer known to be scored
    (made.folder / f"units/score/{runs}/pt/step-0000010.json").unlink()
    assert not [name for name in kinds(made, exports=True)["exports"] if "V1P0" in name]


def test_leftovers_go_once_nobody_works_on_them(made: Finished) -> None:
    old, new = made.folder / "tiny/.export.0123abcd.tmp", made.folder / "scores/.x.parquet.0123abcd.tmp"
    write_text(old / "deep/file", "half")
    write_text(new, "being written")
    for path in (old / "deep/file", old / "deep", old):
        os.utime(path, (1e9, 1e9))
    assert kinds(made)["leftovers"] == {"tiny/.export.0123abcd.tmp"}
    os.utime(new, (1e9, 1e9))
    assert len(kinds(made)["leftovers"]) == 2


def test_links_are_not_followed(made: Finished, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(made.folder / "tiny/V1P0", elsewhere / "V1P0")
    (made.folder / "tiny/V1P0").symlink_to(elsewhere / "V1P0")  # a scale on another disk
    shutil.move(made.folder / "tiny/V2P2/seed0/pt/checkpoints", elsewhere / "checkpoints")
    (made.folder / "tiny/V2P2/seed0/pt/checkpoints").symlink_to(elsewhere / "checkpoints")
    shutil.rmtree(made.data / "index" / BLEND)
    (made.data / "index" / BLEND).symlink_to(elsewhere)
    origin = made.folder / "tiny/V2P2/seed0/pt/provenance.json"
    write_json(origin, read_json(origin) | {"data": {"blend": "../../runs"}})
    before = snapshot(elsewhere)
    found = kinds(made, exports=True)
    assert found["checkpoints"] == {"tiny/V2P2/seed0/sft-tiny/checkpoints"} and "index" not in found
    clean(made.folder, made.units, made.data, exports=True)
    assert snapshot(elsewhere) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tiny").symlink_to(made.folder)
    with pytest.raises(ArtifactError, match="is a link"):
        clean(tmp_path / "other/tiny", made.units, made.data, everything=True)


def test_killed_in_the_middle_only_leftovers_are_left(made: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[Path] = []

    def dies(path: Path) -> None:
        removed.append(path)
        if len(removed) == 3:
            next(p for p in path.rglob("*") if p.is_file()).unlink()
            raise KeyboardInterrupt
        shutil_rmtree(path)

    shutil_rmtree = shutil.rmtree
    monkeypatch.setattr(module.shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        clean(made.folder, made.units, made.data, exports=True)
    monkeypatch.undo()
    assert removed[2].exists() and removed[2].name.startswith(".checkpoints.")
    assert {state.kind for state in states(made.folder, made.units).values()} == {"done"}
    for path in (removed[2], *removed[2].rglob("*")):
        os.utime(path, (1e9, 1e9))
    assert removed[2].relative_to(made.folder).as_posix() in kinds(made)["leftovers"]


def test_all_of_it_goes_but_not_while_somebody_works_on_it(made: Finished) -> None:
    with study_lock(made.folder), pytest.raises(ResourceError, match="another process is at work"):
        clean(made.folder, made.units, made.data, everything=True)
    with (
        hold_lease(made.folder, "pretrain/tiny/V1P0/seed0"),
        pytest.raises(ResourceError, match="at work on pretrain/"),
    ):
        clean(made.folder, made.units, made.data)  # by Slurm, without a driver
    assert kinds(made, everything=True) == {"study": {"."}, "index": {f"index/{BLEND}"}}
    clean(made.folder, made.units, made.data, everything=True)
    assert not made.folder.exists() and [p.name for p in (made.data / "index").iterdir()] == ["c" * 64]


def test_sizes_can_be_asked_for_while_somebody_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").write_bytes(b"12345")
    assert size_bytes(tmp_path) == 5 and size_bytes(tmp_path / "nowhere") == 0
    monkeypatch.setattr(module.os, "walk", lambda path: [(str(path), [], ["there", "renamed since"])])
    assert size_bytes(tmp_path) == 5
    (tmp_path / "link").symlink_to(tmp_path)
    assert size_bytes(tmp_path / "link") == (tmp_path / "link").lstat().st_size
