"""Print a script that completes commands, options, files and the configs of ilqljax in a shell.

    ilqljax completion bash > ~/.local/share/bash-completion/completions/ilqljax
    ilqljax completion zsh > ~/.zfunc/_ilqljax

The shell reads it when it is started anew; for zsh, ~/.zfunc must be in its fpath.
"""

import argparse
import importlib

from ilqljax.cli import list_commands, make_parser
from ilqljax.config.files import list_configs

SHELLS = ("bash", "zsh", "tcsh")
# What --config may be, as a function of the shell; tcsh has none, and completes files alone. The bash function's name
# ends as it does because shtab takes its words for paths by that.
CONFIG_FUNCTIONS = {
    "bash": '_ilqljax_config_file() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "_ilqljax_config() {{ _alternative 'configs:config:({names})' 'files:file:_files'; }}",
}
CONFIG = {"bash": "_ilqljax_config_file", "zsh": "_ilqljax_config", "tcsh": "f"}


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
        parser = make_parser(name, command)
        for action in parser._actions:
            if action.dest == "config":
                action.complete, action.metavar = CONFIG, "FILE"  # in zsh's script a colon means something else
            elif action.dest == "config.KEY":
                action.help = argparse.SUPPRESS  # stands for other words
            elif action.nargs != 0 and action.type in (None, str) and not action.choices:
                action.complete = shtab.FILE
        groups[group].add_parser(last, parents=[parser], add_help=False, help=line)
    names = " ".join(list_configs())
    functions = {shell: text.format(names=names) for shell, text in CONFIG_FUNCTIONS.items()}
    print(shtab.complete(root, args.shell, preamble=functions))
