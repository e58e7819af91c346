"""`ilqljax evaluate`, which see."""

import sys

from ilqljax.cli import main

main(["evaluate", *sys.argv[1:]])
