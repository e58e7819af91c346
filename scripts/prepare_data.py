"""`ilqljax data prepare`, which see."""

from ilqljax.cli import main

main(before=["data", "prepare"])
