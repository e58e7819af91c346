"""How a process is set up for speed."""

import subprocess
import sys

from ilqljax.models.cpu import Path as AllocatorPath
from ilqljax.models.cpu import restart_with_huge_pages

PROGRAM = """
import os, sys
from ilqljax.models import cpu as allocator
class Asked:
    def __init__(self, path): pass
    def is_file(self): return True
    def read_text(self): return "always [madvise] never"
allocator.Path = Asked
allocator.restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def run(*, env=None, program=PROGRAM):
    command = [sys.executable, "-c", program, "a b", "--c=1"]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=True, timeout=60).stdout


def test_the_process_starts_once_more_with_its_arguments(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert run() == "glibc.malloc.hugetlb=1 ['a b', '--c=1']\n"


def test_a_setting_of_the_users_own_is_left_alone(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    assert run() == "glibc.malloc.check=0 ['a b', '--c=1']\n"


def test_nothing_is_done_where_the_kernel_gives_huge_pages_anyway(monkeypatch, tmp_path):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    setting = tmp_path / "enabled"
    setting.write_text("[always] madvise never")
    monkeypatch.setattr("ilqljax.models.cpu.Path", lambda path: AllocatorPath(setting))
    restart_with_huge_pages()
