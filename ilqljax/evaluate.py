"""Judge a run again: `python -m ilqljax.evaluate --help` (`ilqljax.training.evaluation`)."""

from ilqljax.cli import run_main
from ilqljax.training.evaluation import main

if __name__ == "__main__":
    run_main(main)
