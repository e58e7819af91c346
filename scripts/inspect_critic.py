"""`ilqljax inspect`, which see."""

from ilqljax.cli import main

main(before=["inspect"])
