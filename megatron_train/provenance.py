"""Where a run comes from: the fingerprint that decides whether it is done, and provenance.json for the reader.

In: the resolved config, fingerprints of data and parent. Out: one sha256 over everything that changes the result, and a
record of the command, versions and machine.
"""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING, Any

from configs.runtime.versions import git_commit, versions

if TYPE_CHECKING:
    from megatron_train.job import Job

PACKAGES = ("torch", "megatron-core", "numpy", "safetensors", "transformer-engine")


def provenance(job: Job, hardware: str, world: int) -> dict[str, Any]:
    """The content of provenance.json; world: processes."""
    return {
        "version": 1,
        "inputs": job.inputs,
        "data": job.data_fingerprints,
        "manifests": job.manifests,
        "parent": {"export": str(job.parent), "sha256": job.parent_sha256} if job.parent else None,
        "command": " ".join(sys.argv),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": versions(PACKAGES),
        "hardware": hardware,
        "processes": world,
    }
