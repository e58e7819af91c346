"""`ilqljax report impact`, which see."""

import sys

from ilqljax.cli import main

main(["report", "impact", *sys.argv[1:]])
