"""Judge a run again: `python -m ilqljax.evaluate` is `ilqljax evaluate`."""

from ilqljax.cli import main

if __name__ == "__main__":
    main(before=["evaluate"])
