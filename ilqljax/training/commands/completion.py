"""Print a script that completes commands and options in a shell.

    ilqljax completion bash > ~/.local/share/bash-completion/completions/ilqljax
    ilqljax completion zsh > ~/.zfunc/_ilqljax

The shell reads it when it is started anew; for zsh, ~/.zfunc must be in its fpath.
"""

import argparse
import importlib

from ilqljax.cli import list_commands, make_parser

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=SHELLS, help="which shell the script is for")


def run(args: argparse.Namespace) -> None:
    """Print the script, made of the parsers of all commands."""
    import shtab

    root = argparse.ArgumentParser("ilqljax")
    groups = {"": root.add_subparsers()}
    for name, module in sorted(list_commands().items()):
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].add_parser(group, help=f"{group} commands").add_subparsers()
        command = importlib.import_module(module)
        line = command.__doc__.splitlines()[0]
        groups[group].add_parser(last, parents=[make_parser(name, command)], add_help=False, help=line)
    print(shtab.complete(root, args.shell))
