"""How a program's process is set up for speed: the persistent compilation cache, and huge pages for the allocator."""

import os
import sys
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


def restart_with_huge_pages() -> None:
    """Start this process anew, once, with an allocator that asks the kernel for huge pages where that has to be asked.

    XLA takes gigabytes from the allocator at every step on a CPU and gives them back; a page fault for each 4 KiB of
    them cost a GPT-2-small step a sixth of its time. glibc reads the setting when a process starts, and not later. To
    be called before anything else, by a program that owns its process; GLIBC_TUNABLES in the environment keeps it from
    doing anything.
    """
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if "GLIBC_TUNABLES" in os.environ or not setting.is_file() or "[madvise]" not in setting.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)
