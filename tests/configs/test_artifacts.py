"""Artefacts are whole or absent, and an altered one is noticed."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.artifacts import (
    atomic_file,
    atomic_folder,
    describe_file,
    fingerprint,
    known_hashes,
    read_json,
    remember_hashes,
    remove_abandoned,
    sha256_file,
    sha256_files,
    sha256_unchanged,
    verify_files,
    verify_untouched,
    write_json,
    write_text,
)
from configs.errors import ArtifactError
from configs.layout import PROJECT_ROOT


class Interrupted(BaseException):
    """Not an Exception: like KeyboardInterrupt."""


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    with pytest.raises(Interrupted), atomic_file(path) as stream:
        stream.write(b"half")
        raise Interrupted
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as stream:
        stream.write(b"whole")
        assert not path.exists()
    with pytest.raises(Interrupted), atomic_file(path) as stream:
        stream.write(b"half")
        raise Interrupted
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "not there yet" / "scores.parquet")
    path = tmp_path / "scores.parquet"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom configs.artifacts import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as stream:\n    stream.write(b'half')\n    stream.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=PROJECT_ROOT)
    (left,) = tmp_path.iterdir()
    assert killed.returncode == -9 and left.read_bytes() == b"half"
    with atomic_file(path) as stream:
        remove_abandoned(path)
        assert not left.exists()
        stream.write(b"whole")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "shards"
    with pytest.raises(Interrupted), atomic_folder(path) as folder:
        (folder / "part").write_text("half")
        raise Interrupted
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with atomic_folder(path) as folder:
            (folder / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(Interrupted), atomic_folder(path) as folder:
        raise Interrupted
    assert (path / "second").read_text() == "second"


def test_a_folder_that_several_replace_at_once_is_whole(tmp_path: Path) -> None:
    """Threads stand for processes: a lock belongs to the open folder."""
    path = tmp_path / "shards"

    def replace(name: str) -> None:
        for _ in range(60):
            with atomic_folder(path) as folder:
                for part in range(3):
                    (folder / f"{name}{part}").write_text(name)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(replace, name) for name in "abcd"]:
            done.result()
    assert sorted(p.name[1:] for p in path.iterdir()) == ["0", "1", "2"]
    assert len({p.name[0] for p in path.iterdir()}) == 1 and list(tmp_path.iterdir()) == [path]


def test_a_kill_while_a_folder_is_replaced_leaves_it_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "shards"
    with atomic_folder(path) as folder:
        for name in "abc":
            (folder / name).write_text(name)
    # The process dies in the removal of the old folder, as kill -9 would end it.
    script = (
        "import os, shutil, pathlib, sys\n"
        "from configs.artifacts import atomic_folder\n"
        "shutil.rmtree = lambda *a, **k: os._exit(9)\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'new').write_text('new')\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    assert [p.name for p in path.iterdir()] == ["new"]


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\n"
        "from configs.artifacts import read_json, write_text\n"
        "path, text = pathlib.Path(sys.argv[1]), '\\u00e9\\u4e2d'\n"
        "write_text(path, f'\"{text}\"')\n"
        "assert read_json(path) == text\n"
    )
    path = tmp_path / "a.json"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=True)
    assert path.read_bytes() == '"é中"'.encode()


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [1, 2]})
    first = path.read_bytes()
    write_json(path, {"a": [1, 2], "b": 1})
    assert path.read_bytes() == first
    assert read_json(path) == {"a": [1, 2], "b": 1}
    with pytest.raises(ArtifactError, match="missing"):
        read_json(tmp_path / "none.json")
    for broken in (b'{"a": ', b"\xff\xfe"):
        path.write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"a\.json: not valid JSON"):
            read_json(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_json_is_not_written(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": [number]})
    assert not list(tmp_path.iterdir())


def test_verify_files_names_what_is_wrong(tmp_path: Path) -> None:
    for name in ("one.bin", "two.bin"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    files = {name: describe_file(tmp_path / name) for name in ("one.bin", "two.bin")}
    verify_files(tmp_path, files, deep=True)

    two = tmp_path / "two.bin"
    original = two.read_bytes()
    two.write_bytes(original[:-1])
    with pytest.raises(ArtifactError, match=r"two\.bin: 69 bytes found, the manifest says 70"):
        verify_files(tmp_path, files)
    two.write_bytes(b"X" + original[1:])
    verify_files(tmp_path, files)  # the size is right
    with pytest.raises(ArtifactError, match=r"two\.bin: sha256 differs"):
        verify_files(tmp_path, files, deep=True)
    two.unlink()
    with pytest.raises(ArtifactError, match=r"two\.bin: file named in the manifest is missing"):
        verify_files(tmp_path, files)
    assert (tmp_path / "one.bin").exists()  # nothing was touched


def test_hashes_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"bc")
    (tmp_path / "a").write_bytes(b"a")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_files([tmp_path / "b", tmp_path / "a"]) == abc  # name order, contents joined
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == abc


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans())))
def test_fingerprint_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert fingerprint(value) != fingerprint({**value, "one more": 1.5})


def test_write_text_makes_its_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "y" / "z.txt", "z")
    assert (tmp_path / "x" / "y" / "z.txt").read_text() == "z"


@given(st.data())
def test_a_flipped_bit_of_sealed_json_is_noticed_or_changes_no_value(data: st.DataObject) -> None:
    value = {"step": 20, "export": {"20": "0f3a"}, "kept": ["a", None, 1.5]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "DONE"
        write_json(path, value, sealed=True)
        assert read_json(path) == value
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        try:
            found = read_json(path)
        except ArtifactError as error:
            assert str(path) in str(error) and "delete it and rerun" in str(error)
        else:
            assert {key: found[key] for key in value} == value  # white space, or the seal's own name


def test_what_was_written_to_after_its_manifest_is_read_again(tmp_path: Path) -> None:
    part, manifest = tmp_path / "part", tmp_path / "manifest.json"
    part.write_bytes(b"0123456789")
    files = {"part": describe_file(part)}
    write_json(manifest, files)
    written = manifest.stat().st_mtime_ns
    for at_ns, contents in ((written - 1, b"012345678X"), (written + 1, b"0123456789")):
        assert manifest.stat().st_mtime_ns == written
        part.write_bytes(contents)
        os.utime(part, ns=(at_ns, at_ns))
        verify_untouched(tmp_path, manifest, files)  # the file system noticed nothing; nothing was changed
    assert manifest.stat().st_mtime_ns > written + 1  # it was read, and will not be read again
    os.utime(manifest, ns=(written, written))
    part.write_bytes(b"012345678X")
    os.utime(part, ns=(written + 1, written + 1))
    with pytest.raises(ArtifactError, match="sha256 differs"):
        verify_untouched(tmp_path, manifest, files)
    part.write_bytes(b"01234")
    os.utime(part, ns=(written - 1, written - 1))
    with pytest.raises(ArtifactError, match="5 bytes found"):
        verify_untouched(tmp_path, manifest, files)


def test_an_input_is_hashed_once_unless_it_was_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"first")
    before = path.stat()
    hashed: list[Path] = []
    monkeypatch.setattr("configs.artifacts.sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    first = [sha256_unchanged(path) for _ in range(3)]
    assert first == [hashlib.sha256(b"first").hexdigest()] * 3 and hashed == [path]
    time.sleep(0.02)
    path.write_bytes(b"other")  # of the same size, and as old as before
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_unchanged(path) == hashlib.sha256(b"other").hexdigest() and hashed == [path, path]


def test_a_process_believes_the_hashes_it_is_given_unless_a_file_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, changed = tmp_path / "kept", tmp_path / "changed"
    for path in (kept, changed):
        path.write_bytes(b"first")
        sha256_unchanged(path)
    given_on = pickle.loads(pickle.dumps(known_hashes()))
    changed.write_bytes(b"second")
    hashed: list[Path] = []
    monkeypatch.setattr("configs.artifacts.sha256_file", lambda path: hashed.append(path) or sha256_file(path))
    monkeypatch.setattr("configs.artifacts._known_hashes", {})  # another process
    remember_hashes(given_on)
    assert [sha256_unchanged(path) for path in (kept, changed)] == [
        hashlib.sha256(content).hexdigest() for content in (b"first", b"second")
    ]
    assert hashed == [changed]
