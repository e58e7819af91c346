"""Rewrite one posting: `python -m ilqljax.rewrite --help` (`ilqljax.hiring.rewrite`)."""

from ilqljax.cli import run_main
from ilqljax.hiring.rewrite import main

if __name__ == "__main__":
    run_main(main)
