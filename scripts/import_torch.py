"""`ilqljax import`, which see."""

import sys

from ilqljax.cli import main

main(["import", *sys.argv[1:]])
