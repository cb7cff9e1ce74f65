"""What somebody else may have written, taken apart with a message and a limit for whatever it holds.

In: names that become parts of paths, JSON, lines of text files, values of files that a person may have altered. Out:
the same, checked; or ValueError, or an error of `configs.errors` that names the file. docs/threats.md lists who reads
what through here.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from configs.errors import ArtifactError, ConfigError, MagicError

if TYPE_CHECKING:
    import numpy.typing as npt

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
"""What becomes part of a path, of a job's name or of a shell script must match this."""
NAME_RULE = "a name of at most 100 letters, digits, '.', '_' and '-', which begins with none of '.' and '-'"

YAML_BYTES = 4 << 20
"""Most of a YAML file: PyYAML reads about a million bytes a second."""
YAML_NODES = 100_000
"""Most keys and values of a YAML file, those that aliases repeat counted as often as they appear."""
JSON_BYTES = 256 << 20
"""Most of a JSON file; tokenizers take tens of millions of bytes. Python's objects can take 25 times as much."""
DOCUMENT_BYTES = 128 << 20
"""Most of a line, a text file or a value of a corpus, decompressed."""


def is_name(text: object) -> bool:
    """May it be part of a path?"""
    return isinstance(text, str) and re.fullmatch(NAME_PATTERN.removesuffix("$"), text) is not None


def check_name(text: str, what: str) -> str:
    """`text`, where it may be part of a path. Raises ConfigError saying `what` it should name."""
    if not is_name(text):
        raise ConfigError(f"{what} is {text!r:.120}", valid=NAME_RULE)
    return text


def inside(folder: Path, name: object, said_by: object) -> Path:
    """The file `name` of a folder. Raises ArtifactError where the name, `said_by` a file, would lead out of it."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not parts or ".." in parts or parts[0] == "/" or "\0" in str(name):
        raise ArtifactError(f"it names the file {name!r:.120}", where=said_by, valid=f"files inside {folder}")
    return folder / str(name)


def shown(value: object) -> str:
    """A value as Python writes it, for a message; short, and there even where Python cannot write it."""
    try:
        return f"{value!r:.60}"
    except (RecursionError, ValueError):  # nested too deeply; a number of more than 4,300 digits
        return f"a {type(value).__name__}"


def parse_json(text: str | bytes, constant: Callable[[str], Any] | None = None) -> Any:
    """Raises ValueError, whatever is wrong: also for UTF-8 that is none, and for lists a thousand deep.

    constant: gets NaN, Infinity or -Infinity, which are not JSON but which Python and others write; None: a float.
    """
    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextlib.contextmanager
def understood(
    where: object,
    kind: type[MagicError] = ArtifactError,
    hint: str | None = None,
    problem: str = "not what this program writes there",
) -> Iterator[None]:
    """While the parsed content of a file is taken apart, what fails is the file's fault: keys that are missing, values
    of other types, sizes beyond any range. Hold as little as possible inside.
    """
    try:
        yield
    except MagicError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise kind(f"{problem} ({type(error).__name__}: {error!s:.200})", where=where, hint=hint) from error


def map_array(path: Path, hint: str | None = None) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped, so that it takes no memory before it is read; never Python's objects.

    Raises ArtifactError for another file, and for one that is shorter than it claims.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("an archive of arrays")
    except FileNotFoundError:
        raise ArtifactError("file is missing", where=path, hint=hint) from None
    except Exception as error:  # of numpy's header, which is Python source, its tokenizer, and mmap
        raise ArtifactError(f"not a readable array ({error!s:.200})", where=path, hint=hint) from None
    return found


def lines_of(stream: IO[bytes], where: object, kind: type[MagicError], limit: int = DOCUMENT_BYTES) -> Iterator[bytes]:
    """Lines with their ends. Raises `kind` for one of more than `limit` bytes, before it is in memory."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise kind(f"line {number} has more than {limit:,} bytes", where=where, valid="one object a line")
        yield line
