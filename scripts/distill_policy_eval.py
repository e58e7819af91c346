"""`ilqljax report policies`, which see."""

from ilqljax.cli import main

main(before=["report", "policies"])
