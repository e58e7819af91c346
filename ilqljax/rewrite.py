"""Rewrite one posting: `python -m ilqljax.rewrite` is `ilqljax rewrite`."""

from ilqljax.cli import main

if __name__ == "__main__":
    main(before=["rewrite"])
