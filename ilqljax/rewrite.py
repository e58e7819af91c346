"""Rewrite one posting: `python -m ilqljax.rewrite` is `ilqljax rewrite`."""

import sys

from ilqljax.cli import main

if __name__ == "__main__":
    main(["rewrite", *sys.argv[1:]])
