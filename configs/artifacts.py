"""Artefacts on disk: written under a temporary name and renamed, hashed, and checked before they are believed.

A file that exists under its final name is complete. A folder of files is complete once its `manifest.json`
(always written last) exists and the sizes it names agree.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from configs.errors import ArtifactError
from configs.untrusted.checks import JSON_BYTES, inside, parse_json, understood

MANIFEST = "manifest.json"
SEAL = "seal"


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path` for writing; on success it is synced and renamed, on failure removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, stream = _open_locked(path, mode)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            temporary.replace(path)  # while it is locked
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_locked(path: Path, mode: str) -> tuple[Path, IO[Any]]:
    """A temporary sibling of `path`, open and locked, so that `remove_abandoned` knows that someone writes it."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        stream = temporary.open(mode, encoding=None if "b" in mode else "utf-8")
        locked = True
        with contextlib.suppress(OSError):  # on a filesystem without locks nobody takes it for abandoned
            locked = lock_file(stream.fileno())
        # Before it was locked, another process may have taken it for abandoned.
        if locked and temporary.exists():
            return temporary, stream
        stream.close()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success it takes the place of `path` (an older one is removed).

    Siblings that killed processes left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path)
    temporary, lock = _new_locked_folder(path)
    with contextlib.ExitStack() as held:
        if lock is not None:
            held.callback(os.close, lock)
        try:
            yield temporary
            replace_folder(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _new_locked_folder(path: Path) -> tuple[Path, int | None]:
    """A temporary sibling folder of `path`, and the descriptor that locks it; None on a filesystem without locks."""
    while True:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        temporary.mkdir()
        try:
            lock = lock_folder(temporary)
        except (BlockingIOError, FileNotFoundError):  # before it was locked, another process took it for abandoned
            continue
        except OSError:
            return temporary, None
        if temporary.exists():
            return temporary, lock
        os.close(lock)


def replace_folder(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder that was there is removed. If several processes do it, the last one's stays."""
    aside = []
    while True:
        try:
            new.replace(path)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # Renamed before it is removed: a kill between the two must not leave half of it under its final name.
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old.tmp")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path.replace(old)
            aside.append(old)
    for old in aside:
        shutil.rmtree(old, ignore_errors=True)  # as another process may do too


def lock_folder(folder: Path, *, wait: bool = False) -> int:
    """An open descriptor that locks a folder until it is closed, or its process has ended, however that happened.

    Over NFS it holds on this machine only (`lock_file` between machines). wait: until another process has let it go.

    Raises BlockingIOError where, without it, another process holds the lock, FileNotFoundError where the folder has
    gone, another OSError on a filesystem that knows no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_file(descriptor: int) -> bool:
    """Lock an open file until it is closed or its process has ended; False where another process holds it.

    The file must be open for writing: over NFS such a lock holds between machines, that of a folder does not. On a
    filesystem that knows no locks nobody is turned away.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def remove_abandoned(path: Path, pattern: str = "") -> None:
    """Remove unfinished siblings of the file or folder `path` that no process holds locked: killed processes left them.

    Those are the temporary files and folders of this module, and those whose name after `.<name of path>.` fits
    `pattern`.
    """
    known = re.compile(rf"\.{re.escape(path.name)}\.([0-9a-f]{{8}}(\.old)?\.tmp|{pattern or '(?!)'})")
    for sibling in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        if known.fullmatch(sibling.name):
            with contextlib.suppress(OSError):
                lock = lock_folder(sibling)
                if sibling.is_dir():
                    shutil.rmtree(sibling, ignore_errors=True)
                else:
                    sibling.unlink(missing_ok=True)
                os.close(lock)


def write_text(path: Path, text: str) -> None:
    with atomic_file(path, "w") as stream:
        stream.write(text)


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON with sorted keys, so equal values are equal bytes. NaN and infinity are not JSON:
    a caller that has one must say it in another way, or it is a ValueError.

    sealed: an object gets its own fingerprint beside its keys, and whoever reads it is told if it was altered.
    """
    if sealed:
        value = value | {SEAL: fingerprint(json.loads(json.dumps(value)))}
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` was given.

    Raises ArtifactError where the file is missing, not JSON, larger than any of ours, or has a broken seal.
    """
    try:
        if (size := path.stat().st_size) > JSON_BYTES:
            raise ArtifactError(f"{size:,} bytes of JSON", where=path, valid=f"at most {JSON_BYTES:,}")
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError("file is missing", where=path) from None
    except ArtifactError:
        raise
    except ValueError as error:  # not JSON, or not even UTF-8
        raise ArtifactError(f"not valid JSON ({error})", where=path, hint="delete it and rerun") from None
    if isinstance(value, dict) and (seal := value.pop(SEAL, None)) is not None and seal != fingerprint(value):
        raise ArtifactError("altered since it was written", where=path, hint="delete it and rerun")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """`read_json` of an object. Raises ArtifactError for other JSON too."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError("not a JSON object", where=path, hint="delete it and rerun")
    return value


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_unchanged(path: Path) -> str:
    """`sha256_file` of a file that nobody writes to, read once: input files are asked for again and again."""
    at = path.stat()
    # No program can set the time of the last change of an inode (ctime), so that it tells what size and mtime may hide.
    state = path, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns
    # Threads may hash the same file at once: that costs time, not correctness.
    if state not in _known_hashes:
        _known_hashes[state] = sha256_file(path)
    return _known_hashes[state]


FileState = tuple[Path, int, int, int, int]
"""A file and its inode, size, mtime and ctime."""
_known_hashes: dict[FileState, str] = {}


def known_hashes() -> dict[FileState, str]:
    """The hashes that `sha256_unchanged` has taken, to be handed to another process."""
    return dict(_known_hashes)


def remember_hashes(known: Mapping[FileState, str]) -> None:
    """Take over the hashes of another process; they are not believed for files that have changed since."""
    _known_hashes.update(known)


def sha256_files(paths: list[Path]) -> str:
    """One sha256 over the contents of `paths`, taken in name order (a checkpoint's fingerprint)."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """sha256 of a JSON-serialisable value; equal values give equal fingerprints across machines."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def is_made_from(folder: Path, inputs: Any) -> bool:
    """Does the folder's manifest say that it was made from these inputs? It keeps their fingerprint."""
    path = folder / MANIFEST
    return path.is_file() and read_object(path).get("inputs") == fingerprint(inputs)


def describe_file(path: Path) -> dict[str, Any]:
    """The manifest entry of one file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def verify_files(folder: Path, files: dict[str, dict[str, Any]], *, deep: bool = False) -> None:
    """Check that every file of a manifest is there with its size (`deep`: and its sha256).

    Raises ArtifactError naming the first file that is missing, truncated or altered, and for a manifest that names
    files of another folder.
    """
    hint = f"delete {folder} and rerun"
    with understood(f"the manifest of {folder}", hint=hint):
        entries = [(inside(folder, name, folder), entry["bytes"], entry.get("sha256")) for name, entry in files.items()]
    for path, wanted, sha256 in entries:
        if not path.is_file():
            raise ArtifactError("file named in the manifest is missing", where=path, hint=hint)
        size = path.stat().st_size
        if size != wanted:
            problem = f"{size} bytes found, the manifest says {wanted} (truncated or altered)"
            raise ArtifactError(problem, where=path, hint=hint)
        if deep and sha256_file(path) != sha256:
            raise ArtifactError("sha256 differs from the manifest", where=path, hint=hint)


def verify_untouched(folder: Path, manifest: Path, files: dict[str, dict[str, Any]]) -> None:
    """`verify_files`, deep for those that were written to after their manifest, which is always written last.

    Copies that are found whole are read once: the manifest's time is then set to now.
    """
    verify_files(folder, files)
    written = manifest.stat().st_mtime_ns
    later = {name: entry for name, entry in files.items() if (folder / name).stat().st_mtime_ns > written}
    verify_files(folder, later, deep=True)
    if later:
        with contextlib.suppress(OSError):  # somebody else's
            os.utime(manifest)


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of the files of a folder; links count for themselves, and what just goes for nothing."""
    walked = path.is_dir() and not path.is_symlink()
    files = (Path(at) / name for at, _, names in os.walk(path) for name in names) if walked else [path]
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total
