"""Train a policy as a config file says, and judge it.

    ilqljax train --config configs/workable.py
    ilqljax train --config configs/workable.py:bc --config.train.lr=1e-3
    ilqljax train --config configs/workable.py --config.resume=latest

Every option of the config can be set as --config.KEY=VALUE. The file says what differs from the defaults; a wrong key
is refused with those that there are, and config.json in the run's folder, which is printed at the end, holds them all.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options; absl reads them (`ilqljax.train`)."""
    parser.add_argument("--config", metavar="FILE[:FLAGS]", required=True, help="a file of configs/, and its flags")
    parser.add_argument("--config.KEY", metavar="VALUE", help="another value of a key; its default is the file's")
    parser.add_argument("--distributed", action="store_true", help="one of several processes that train together")
