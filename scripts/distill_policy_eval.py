"""`ilqljax report policies`, which see."""

import sys

from ilqljax.cli import main

main(["report", "policies", *sys.argv[1:]])
