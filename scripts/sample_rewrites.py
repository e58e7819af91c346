"""`ilqljax data sample`, which see."""

from ilqljax.cli import main

main(before=["data", "sample"])
