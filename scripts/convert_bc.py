"""`ilqljax export --policy bc`, which see."""

import sys

from ilqljax.cli import main

main(["export", "--policy", "bc", *sys.argv[1:]])
