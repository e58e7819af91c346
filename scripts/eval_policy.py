"""`ilqljax evaluate`, which see."""

from ilqljax.cli import main

main(before=["evaluate"])
