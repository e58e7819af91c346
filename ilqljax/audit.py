"""Audit a matcher or a table of scores: `python -m ilqljax.audit` is `ilqljax audit`."""

from ilqljax.cli import main

if __name__ == "__main__":
    main(before=["audit"])
