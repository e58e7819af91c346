"""The program `ilqljax`: finds a command, reads its options, and ends a mistake with one line.

A command is a module with `add_arguments(parser)` and `run(args)`. Its docstring is its help: a line that says what it
does, indented examples, and details; a function `describe(words)`, if it has one, adds to that what depends on the
words that were given. The library's commands are listed here; a task's are entry points of the group
`ilqljax.commands`, named as the user types them, with a dot where that is a space ("data.prepare"). Such a module
imports jax inside its functions only, so that help is quick.
"""

import argparse
import ast
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from ilqljax.errors import Interrupted, UserError, find_close

T = TypeVar("T")

COMMANDS = "ilqljax.commands"  # the group of the entry points
LIBRARY = {
    "train": "ilqljax.training.commands.train",
    "evaluate": "ilqljax.training.commands.evaluate",
    "inspect": "ilqljax.training.commands.inspect_critic",
    "export": "ilqljax.training.commands.export",
    "import": "ilqljax.training.commands.import_original",
    "completion": "ilqljax.training.commands.completion",
}
HELP = ("-h", "--help")
NOTHING: Mapping[str, Any] = MappingProxyType({})


def main(words: Sequence[str] | None = None, *, before: Sequence[str] = ()) -> None:
    """Run the command that the words name, those of the command line if none are given, `before` in front of them."""
    run_main(lambda: run_command([*before, *(sys.argv[1:] if words is None else words)]))


def run_command(words: Sequence[str]) -> None:
    """Run a command, or print the help that is asked for."""
    commands = list_commands()
    name = next((name for name in (" ".join(words[:2]), " ".join(words[:1])) if name in commands), "")
    if words and words[0] == "--version":
        print(f"ilqljax {importlib.metadata.version('ilqljax')}")
    elif not name:
        show_commands(words, commands)
    elif name == "train" and not set(words) & set(HELP):  # absl reads the words, for its flags are the config's keys
        train = importlib.import_module("ilqljax.train")
        train.restart_with_huge_pages()
        train.main(list(words[1:]))
    else:
        command, words = importlib.import_module(commands[name]), words[len(name.split()) :]
        parser = make_parser(name, command)
        if set(words) & set(HELP) and hasattr(command, "describe"):
            parser.epilog += command.describe(words)
        args = parser.parse_args(words)  # ends here where help was asked for
        command.run(args)


def list_commands() -> dict[str, str]:
    """Return the modules of all commands by name: the library's, then those of installed tasks."""
    entries = importlib.metadata.entry_points(group=COMMANDS)
    return LIBRARY | {e.name.replace(".", " "): e.value for e in entries if e.name not in LIBRARY}


def show_commands(words: Sequence[str], commands: Mapping[str, str]) -> None:
    """List the commands, those that begin with the first word if there are any; other words are refused."""
    group = {name: module for name, module in commands.items() if words and name.startswith(f"{words[0]} ")}
    shown, n_known = (group, 1) if group else (commands, 0)
    if words[n_known:] and words[n_known] not in HELP:
        missing = "" if commands.keys() - LIBRARY else " Those of tasks are missing: run pip install -e . once more."
        unknown = " ".join(words[: n_known + 1])
        hint = find_close(unknown, shown)
        raise UserError(f"Unknown command {unknown!r}.{hint} Commands: {', '.join(shown)}.{missing}")
    width = max(map(len, shown))
    lines = [f"  {name:<{width}}  {read_docstring(module).splitlines()[0]}" for name, module in shown.items()]
    start = " ".join(["usage: ilqljax", *words[:n_known], "COMMAND ..."])
    end = f"example: ilqljax {next(iter(shown))} --help shows the options of a command, and examples"
    print("\n".join([start, "", *lines, "", end]))


def read_docstring(module: str) -> str:
    """Return a module's docstring without importing it, which would take seconds for some."""
    spec = importlib.util.find_spec(module)
    return ast.get_docstring(ast.parse(spec.loader.get_source(module))) or ""


class Parser(argparse.ArgumentParser):
    """Raise mistakes as a `UserError`, which is one line where argparse would repeat the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise UserError(f"{message}. All options: {self.prog} --help")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults, but none that say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)


def make_parser(name: str, command: Any) -> Parser:
    """Return a command's parser: the docstring without its examples above the options, the examples below."""
    blocks = inspect.cleandoc(command.__doc__).split("\n\n")
    examples = [block for block in blocks if block.startswith("    ")]
    parser = Parser(
        prog=f"ilqljax {name}",
        description="\n\n".join(block for block in blocks if block not in examples),
        epilog="\n".join(["examples:", *examples]),
        formatter_class=HelpFormatter,
    )
    command.add_arguments(parser)
    return parser


def add_renamed(parser: argparse.ArgumentParser, name: str, *old: str, required: bool = False, **options: Any) -> None:
    """Add an option that had other names; these still work, and help does not show them."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument(name, **options)
    for spelling in old:
        group.add_argument(spelling, dest=name.lstrip("-"), help=argparse.SUPPRESS, default=argparse.SUPPRESS)


def add_run(parser: argparse.ArgumentParser, *old: str) -> None:
    """Add the run that a command opens, and the files of its task where that is not installed."""
    add_renamed(parser, "--run", *old, required=True, help="folder of a run, which training printed")
    text = "files or modules that register the run's task, where it is not installed: code that you trust"
    parser.add_argument("--imports", help=text, **_describe_kind(tuple[str, ...], ()))


def add_options(
    parser: argparse.ArgumentParser,
    config: type,
    names: Iterable[str] = (),
    *,
    renamed: Mapping[str, str] = NOTHING,
    known: Mapping[str, Iterable[str]] = NOTHING,
    unset: str = "",
) -> None:
    """Add an option for each field of a dataclass, with its type and default, and the docstring's words as help.

    The fields are `names`, or all but those that are dataclasses themselves; a tuple is a text with commas between its
    items. `renamed` are options that are not called as their field is, and `known` is what a field's value may be, for
    its help. `unset` says what counts where an option is not given, if not the field's default; there is no value then.
    """
    texts, hints = read_attributes(config), typing.get_type_hints(config)
    for field in _select_fields(config, names):
        kind = _describe_kind(hints[field.name], field.default)
        text = texts[field.name]
        if field.name in known:
            text += f". Known: {', '.join(known[field.name])}"
        if unset:
            kind, text = kind | {"default": argparse.SUPPRESS}, f"{text} (default: {unset})"
        parser.add_argument(f"--{renamed.get(field.name, field.name)}", help=text.replace("%", "%%"), **kind)


def read_options(
    args: argparse.Namespace,
    config: type[T],
    names: Iterable[str] = (),
    *,
    renamed: Mapping[str, str] = NOTHING,
    **others: Any,
) -> T:
    """Return the dataclass with the values of the options that `add_options` made, and `others` for other fields."""
    return config(**list_given(args, config, names, renamed=renamed), **others)


def list_given(
    args: argparse.Namespace, config: type, names: Iterable[str] = (), *, renamed: Mapping[str, str] = NOTHING
) -> dict[str, Any]:
    """Return the values of a dataclass's options by field, without those that were not given and have no default."""
    options = {field.name: renamed.get(field.name, field.name) for field in _select_fields(config, names)}
    return {name: getattr(args, option) for name, option in options.items() if hasattr(args, option)}


def read_attributes(documented: Any) -> dict[str, str]:
    """Return what a docstring says of each entry of its section `Attributes:` or `Args:`, of a class's bases too.

    Each text is one line without its last full stop.
    """
    classes = reversed(documented.__mro__) if isinstance(documented, type) else ()
    texts: dict[str, str] = {}
    for each in [part for base in classes for part in (base, base.__init__)] or [documented]:
        section = [*re.split(r"\n(?:Attributes|Args):\n", inspect.cleandoc(each.__doc__ or "")), ""]
        entries = re.split(r"\n(?=\w+: )", textwrap.dedent(section[1].partition("\n\n")[0]))
        found = (entry.partition(": ") for entry in entries)
        texts |= {name: " ".join(text.split()).removesuffix(".") for name, _, text in found}
    return texts


def _select_fields(config: type, names: Iterable[str]) -> list[dataclasses.Field]:
    hints, fields = typing.get_type_hints(config), {field.name: field for field in dataclasses.fields(config)}
    chosen = list(names) or [name for name in fields if not dataclasses.is_dataclass(hints[name])]
    return [fields[name] for name in chosen]


def _describe_kind(hint: Any, default: Any) -> dict[str, Any]:
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction if default else "store_true", "default": default}
    if typing.get_origin(hint) is not tuple:
        return {"type": hint, "default": default}
    item = typing.get_args(hint)[0]

    def read(text: str) -> tuple:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    read.__name__ = "comma-separated list"  # argparse names it: "invalid comma-separated list value"
    return {"type": read, "default": ",".join(map(str, default))}


class PlainFormatter(logging.Formatter):
    """Show a message alone, without what a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and a traceback if there is one."""
        return show_plainly(super().format(record))


def show_plainly(text: str) -> str:
    """Return a text without what a terminal would obey, or a page cannot hold."""
    from ilqljax.data.pages import clean_text  # here, so that help is quick

    return clean_text(text)


def run_main(main: Callable[[], None]) -> None:
    """Run a program; turn a mistake of the user into one line on stderr and exit status 2.

    A `UserError` is printed as it is, an `OSError` with the path it concerns; Ctrl-C ends with status 130, and
    `Interrupted` with its own. Anything else is a bug and keeps its traceback.
    """
    if logging.lastResort is not None:  # for programs that configure no logging
        logging.lastResort.setFormatter(PlainFormatter())
    try:
        main()
        return
    except UserError as error:
        text = str(error)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        text = reason if error.filename is None else f"{error.filename}: {reason}"
    except Interrupted as error:  # who was interrupted has said so
        raise SystemExit(error.status) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"error: {show_plainly(' '.join(text.split()))}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
