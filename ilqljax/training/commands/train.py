"""Train a policy as a config file says, and judge it.

    ilqljax train --config workable
    ilqljax train --config configs/workable.py:bc --config.train.lr=1e-3
    ilqljax train --config configs/workable.py --config.resume=latest
    ilqljax train --config workable:bc --help

The config is a Python file, or the name of one that comes with ilqljax: workable, hackernews or wordle. The file says
what differs from the defaults, and every option can be set as --config.KEY=VALUE; with a config, --help lists them all.
"""

import argparse
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options; absl reads them (`ilqljax.train`)."""
    parser.add_argument("--config", metavar="FILE[:FLAGS]", required=True, help="a config file or name, and its flags")
    parser.add_argument("--config.KEY", metavar="VALUE", help="another value of a key; its default is the file's")
    parser.add_argument("--distributed", action="store_true", help="one of several processes that train together")


def find_config(words: Sequence[str]) -> str:
    """Return the config that the words of a command line name; "" where they name none."""
    parts = [part for word in words for part in word.split("=", 1)]
    return next((value for option, value in pairwise(parts) if option in ("--config", "-config")), "")


def describe(words: Sequence[str]) -> str:
    """List all options of the config that the words name, with their values and what they are."""
    name = find_config(words)
    if not name:
        return ""
    from ilqljax.rl.algorithms import ALGORITHMS
    from ilqljax.training.run_config import RunConfig, load_run_config

    config = load_run_config(name).to_dict()
    losses = {"pretrain": ALGORITHMS["bc"], "train": ALGORITHMS[config["algorithm"]]}
    known = {f"--config.{stage}.loss": algorithm.config_class for stage, algorithm in losses.items()}
    lines = describe_section(config, [RunConfig], "--config", known)
    return "\n".join(["", "", f"options of {name}, and their values:", *lines])


def describe_section(
    section: Mapping[str, Any], documented: Sequence[Any], path: str, known: Mapping[str, type]
) -> Iterator[str]:
    """Yield the key and value of each option of a section and of those within it, a line each, and what it is.

    Args:
        section: values by key.
        documented: the dataclasses and functions whose docstrings say what the options are.
        path: what the section's keys begin with.
        known: the dataclasses of sections that no annotation names, by path.
    """
    from ilqljax.cli import read_attributes
    from ilqljax.config.registry import find_builder, infer_kind, is_named, list_names
    from ilqljax.config.sections import list_parameters

    texts, parameters = {}, {}
    for each in documented:
        texts |= read_attributes(each)
        parameters |= list_parameters(each)
    nested = {key: value for key, value in section.items() if isinstance(value, Mapping)}
    for key, value in section.items():
        if key in nested:
            continue
        text = texts.get(key, "")
        if key == "name" and is_named(section):
            text = f"one of {', '.join(list_names(infer_kind(path.rpartition('.')[2])))}"
        yield f"  {path}.{key}={value!r}"
        yield from textwrap.wrap(text, 114, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for key, value in nested.items():
        place = f"{path}.{key}"
        if is_named(value):
            inner = find_builder(infer_kind(key), value, path=place).documented
        else:
            inner = [known[place]] if place in known else [parameters[key].annotation]
        yield from describe_section(value, inner, place, known)
