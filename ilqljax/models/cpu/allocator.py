"""Memory for what XLA takes from the allocator."""

import os
import sys
from pathlib import Path


def restart_with_huge_pages() -> None:
    """Start this process again, once, with an allocator that asks the kernel for huge pages where it has to be asked.

    XLA takes gigabytes from the allocator at every step on a CPU and gives them back; a page fault for each 4 KiB of
    them cost a GPT-2-small step a sixth of its time. glibc reads the setting when a process starts, and not later. To
    be called before anything else, by a program that owns its process; GLIBC_TUNABLES in the environment keeps it from
    doing anything. It cannot ask which platform there will be, because several processes must find each other before
    JAX is asked for a device; with an accelerator the setting is of no use and does no harm.
    """
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if "GLIBC_TUNABLES" in os.environ or not setting.is_file() or "[madvise]" not in setting.read_text():
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, sys.orig_argv)
