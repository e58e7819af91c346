"""Judge a run again: `python -m ilqljax.evaluate` is `ilqljax evaluate`."""

import sys

from ilqljax.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
