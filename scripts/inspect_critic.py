"""`ilqljax inspect`, which see."""

import sys

from ilqljax.cli import main

main(["inspect", *sys.argv[1:]])
