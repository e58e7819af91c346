"""Compilation: the persistent cache, and a count of compilations."""

import os
from pathlib import Path

import jax

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompilationCounter:
    """Count all compilations of this process while it is open, and their seconds; also those read from the cache.

    A step that compiles anew in the middle of a run (a batch of another shape) shows in the metrics by it.
    """

    def __init__(self) -> None:
        self.n, self.seconds = 0, 0.0

    def __enter__(self) -> "CompilationCounter":
        jax.monitoring.register_event_duration_secs_listener(self._count)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._count)

    def _count(self, event: str, seconds: float, **details: object) -> None:
        if event == COMPILE_EVENT:
            self.n += 1
            self.seconds += seconds

    def read(self) -> dict[str, float]:
        """Return the counts since the last reading, and begin anew; nothing where nothing was compiled."""
        found = {"compilations": float(self.n), "compile_seconds": self.seconds} if self.n else {}
        self.n, self.seconds = 0, 0.0
        return found


def enable_compilation_cache() -> None:
    """Keep compiled programs in `~/.cache/ilqljax/xla`, unless JAX_COMPILATION_CACHE_DIR names another place.

    Programs are keyed by their content, the devices and the versions, so a stale one is never used. For the
    command-line programs only: a library leaves its user's process alone.
    """
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "ilqljax" / "xla"))
