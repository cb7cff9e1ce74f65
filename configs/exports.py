"""When is an export whole? One answer for training, which writes exports, and for scoring, which reads them.

<run>/export/step-0001000/ holds weights, config.json, the tokenizer's files and export.json, which is written last. It
names the files with their sizes and sha256, and says which step of which run they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.artifacts import read_object, verify_files
from configs.errors import ArtifactError
from configs.untrusted.checks import understood

EXPORT_JSON = "export.json"
KEYS = ("step", "tokens", "checkpoint", "files")


def read_export_json(folder: Path) -> dict[str, Any]:
    """export.json of a whole export: it is there, has all `KEYS`, and its files have their sizes.

    Contents are not hashed here: who reads the weights hashes them. Raises ArtifactError for any other folder.
    """
    path = folder / EXPORT_JSON
    if not path.is_file():
        hint = "it is still being written, or was cut short: let its training finish, or run it again"
        raise ArtifactError("incomplete export", where=path, hint=hint)
    facts = read_object(path)
    if missing := [key for key in KEYS if key not in facts]:
        raise ArtifactError(f"key {missing[0]!r} is missing", where=path, valid=", ".join(KEYS))
    with understood(path, hint="export the checkpoint again"):
        verify_files(folder, facts["files"])
        return facts | {
            "step": int(facts["step"]),
            "tokens": int(facts["tokens"]),
            "checkpoint": str(facts["checkpoint"]),
        }
