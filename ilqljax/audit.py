"""Audit a matcher or a table of scores: `python -m ilqljax.audit --help` (`ilqljax.hiring.audit.program`)."""

from ilqljax.cli import run_main
from ilqljax.hiring.audit.program import main

if __name__ == "__main__":
    run_main(main)
