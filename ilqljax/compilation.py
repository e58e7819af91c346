"""The persistent compilation cache: a second run starts without compiling again."""

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keep compiled programs in `~/.cache/ilqljax/xla`, unless JAX_COMPILATION_CACHE_DIR names another place.

    Programs are keyed by their content, the devices and the versions, so a stale one is never used. For the
    command-line programs only: a library leaves its user's process alone.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "ilqljax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
