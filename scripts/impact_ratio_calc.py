"""`ilqljax report impact`, which see."""

from ilqljax.cli import main

main(before=["report", "impact"])
