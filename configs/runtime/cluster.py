"""The Ray cluster that data preparation, scoring and studies share: the user's own, or one of this machine.

Nothing here is imported unless Ray is asked for; every room also works without it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any

from configs.errors import ResourceError
from configs.layout import PROJECT_ROOT

START_ATTEMPTS = 3


@contextlib.contextmanager
def cluster(num_cpus: int | None = None) -> Iterator[None]:
    """The Ray cluster: the one already connected, else the one RAY_ADDRESS names, else one started here and ended."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    paths = [str(PROJECT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}}
    if not os.environ.get("RAY_ADDRESS"):
        # Without a token Ray writes one to ~/.ray; a later `ray start` then asks for it, and `ray job submit` has none.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options |= {"num_cpus": num_cpus, "include_dashboard": False}
    _start(options)
    try:
        yield
    finally:
        ray.shutdown()


def _start(options: dict[str, Any]) -> None:
    """ray.init, again where a busy machine was too slow for Ray's fixed start-up times (15 and 30 s in 2.60)."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(log_to_driver=False, logging_level="error", **options)
            if callable(handler):  # Ray has put its own in the place of ours
                signal.signal(signal.SIGTERM, handler)
            return
        except Exception as error:  # Ray raises a bare Exception for a node that did not come up
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                raise ResourceError(
                    f"Ray did not start or answer in {START_ATTEMPTS} attempts ({error})",
                    where=os.environ.get("RAY_ADDRESS"),
                    hint="look at /tmp/ray/session_latest/logs, or work without Ray (see --help)",
                ) from None
