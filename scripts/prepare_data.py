"""`ilqljax data prepare`, which see."""

import sys

from ilqljax.cli import main

main(["data", "prepare", *sys.argv[1:]])
