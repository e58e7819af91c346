"""`ilqljax import`, which see."""

from ilqljax.cli import main

main(before=["import"])
