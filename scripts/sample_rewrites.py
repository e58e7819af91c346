"""`ilqljax data sample`, which see."""

import sys

from ilqljax.cli import main

main(["data", "sample", *sys.argv[1:]])
