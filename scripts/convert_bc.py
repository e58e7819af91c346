"""`ilqljax export --policy bc`, which see."""

from ilqljax.cli import main

main(before=["export", "--policy", "bc"])
