"""`ilqljax export`, which see."""

import sys

from ilqljax.cli import main

main(["export", *sys.argv[1:]])
