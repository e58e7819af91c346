"""`ilqljax export`, which see."""

from ilqljax.cli import main

main(before=["export"])
