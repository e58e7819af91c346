"""A config's text: the argument after its file's name, files, overrides on the command line, and JSON."""

import importlib.util
import json
import re
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ilqljax.config.sections import Section, suggest, to_plain
from ilqljax.data.files import check_checksum, read_json, save_with_checksum
from ilqljax.errors import UserError


def parse_arg(arg: str, **choices: tuple[str, ...]) -> types.SimpleNamespace:
    """Read the comma list after a config file's colon as one pick per choice, of which each has its own flags.

    `parse_arg(arg, algorithm=("bc+ilql", "bc", "ilql"), size=("tiny", "gpt2"))`:

    | arg         | algorithm | size |
    |-------------|-----------|------|
    | ""          | bc+ilql   | tiny |
    | "bc"        | bc        | tiny |
    | "gpt2,ilql" | ilql      | gpt2 |

    An unknown flag, or two that answer the same choice, are a `UserError`.
    """
    choice_of = {flag: choice for choice, flags in choices.items() for flag in flags}
    picked: dict[str, str] = {}
    for flag in filter(None, (part.strip() for part in arg.split(","))):
        if flag not in choice_of:
            known = "; ".join(f"{choice}: {', '.join(flags)}" for choice, flags in choices.items())
            raise UserError(f"Unknown flag {flag!r} in the config argument {arg!r}. Known flags: {known}.")
        choice = choice_of[flag]
        if picked.get(choice, flag) != flag:
            raise UserError(
                f"The config argument {arg!r} picks two values of {choice}: {picked[choice]!r} and {flag!r}. Keep one."
            )
        picked[choice] = flag
    return types.SimpleNamespace(**{choice: picked.get(choice, flags[0]) for choice, flags in choices.items()})


def resolve_path(path: str | Path, *, root: Path | None = None) -> Path:
    """Resolve a path: that of a config, a run, a data folder or a model, whether it is there or to be made.

    A relative path is looked for in the current directory, then below the repository root. Where neither has it, it is
    to be made below the first of the two that has its first folder, else below the root. `root` stands in for the
    repository root; an installed package has none, and the current directory is taken.

    | path     | the current directory has | the root has | gives                        |
    |----------|---------------------------|--------------|------------------------------|
    | runs/old | runs/old                  | runs/old     | runs/old in the current one  |
    | runs/old | runs                      | runs/old     | runs/old below the root      |
    | runs/new | runs                      | runs         | runs/new in the current one  |
    | runs/new |                           |              | runs/new below the root      |
    """
    if not str(path).strip():
        raise UserError("A path is empty. Give one that is absolute or relative to the repository root.")
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given.absolute()
    below = (root or find_root() or Path.cwd()) / given
    is_here = not below.exists() and len(given.parts) > 1 and Path(given.parts[0]).is_dir()
    return (given if is_here else below).absolute()


def find_root() -> Path | None:
    """Find the repository root: the folder with the package, `configs/` and `pyproject.toml`; None for a wheel's."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "configs").is_dir() and (folder / "pyproject.toml").is_file() else None


def list_configs() -> dict[str, Path]:
    """Return the files of the configs that come with ilqljax by name; a wheel has them in the package."""
    folder = (find_root() or Path(__file__).resolve().parents[1]) / "configs"
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def find_config_file(name: str) -> Path:
    """Find a config: a file, or one that comes with ilqljax, as "workable" or "configs/workable.py" from any folder.

    Raises:
        UserError: there is no such file; names the configs that come with ilqljax.
    """
    path, stem, ours = resolve_path(name), Path(name).stem, list_configs()
    if path.is_file():
        return path
    if stem in ours and name in (stem, f"configs/{stem}.py"):
        return ours[stem]
    neighbours = sorted(p.name for p in path.parent.glob("[!_]*.py") if p not in ours.values())
    beside = f" Python files in {path.parent}: {', '.join(neighbours)}." if neighbours else ""
    known = suggest(stem, ours)
    raise UserError(f"Config file {path} is not there.{beside} Give a file, or a config of ilqljax's own.{known}")


def load_config_file(path_with_arg: str) -> ConfigDict:
    """Load "configs/task.py:arg", which is `get_config("arg")`, or `get_config()` without arg.

    A file in a folder with an `__init__.py` may import its neighbours relatively, whatever the folder is called.
    """
    name, colon, arg = split_arg(str(path_with_arg))
    path = find_config_file(name)
    package = f"ilqljax_configs:{path.parent}".replace(".", "_")  # no other module's name, so `configs` hides nothing
    if (path.parent / "__init__.py").is_file() and package not in sys.modules:
        import_file(package, path.parent / "__init__.py", keep=True, submodule_search_locations=[str(path.parent)])
    module = import_file(f"{package}.{path.stem}" if package in sys.modules else path.stem, path)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"Config file {path} defines no get_config(arg). Add it; it returns a ConfigDict.")
    return module.get_config(arg) if colon else module.get_config()


def split_arg(path_with_arg: str) -> tuple[str, str, str]:
    """Split "configs/task.py:arg" at the colon that ends the file's name, and return name, colon and argument.

    A colon of a drive ("C:\\task.py:bc"), and one in the name of a file that is there, belongs to the name.
    """
    drive = re.match(r"[A-Za-z]:[\\/]", path_with_arg)
    start = drive.end() if drive else 0
    places = [i for i, character in enumerate(path_with_arg) if character == ":" and i >= start]
    there = (i for i in (len(path_with_arg), *reversed(places)) if Path(path_with_arg[:i]).is_file())
    end = next(there, places[0] if places else len(path_with_arg))
    return path_with_arg[:end], path_with_arg[end : end + 1], path_with_arg[end + 1 :]


def import_file(name: str, path: Path, *, keep: bool = False, **options: Any) -> types.ModuleType:
    """Run a Python file as the module `name`, which others can import too if `keep`; `options` are its spec's."""
    spec = importlib.util.spec_from_file_location(name, path, **options)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file. Give one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    if keep:  # also while it is being run: dataclasses look their module up
        sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if keep:
            del sys.modules[name]
        raise
    return module


def read_overrides(config: ConfigDict, arguments: Iterable[str]) -> list[str]:
    """Return command-line arguments as `ml_collections` reads them, each key's value spelt out by the type it has.

    | argument                          | is read as                                   |
    |-----------------------------------|----------------------------------------------|
    | `--config.train.total_steps=1e3`  | 1000                                         |
    | `--config.imports=a.py,b.py`      | ("a.py", "b.py"); the same with C:\\a.py     |
    | `--config.imports=` or `=None`    | ()                                           |
    | `--config.run_dir=None`           | ""                                           |

    An override of a key that the config lacks, and None for a number or a switch, raise a `UserError`.
    """
    return [_read_override(config, argument) for argument in arguments]


def _read_override(config: ConfigDict, argument: str) -> str:
    flag, equals, text = argument.partition("=")
    name = flag.lstrip("-")
    if not argument.startswith("-") or not name.startswith("config."):
        return argument
    value: Any = config
    path = "config"
    for key in name.split(".")[1:]:
        if not isinstance(value, ConfigDict):
            raise UserError(f"--{name}: {path} is a value, not a section. Set --{path}=... instead.")
        if key not in value:
            raise UserError(f"--{name}: {path} has no key {key!r}.{suggest(key, value.keys())}")
        value, path = value[key], f"{path}.{key}"
    return f"{flag}={_spell_out(value, text, name=name)}" if equals else argument


def _spell_out(value: Any, text: str, *, name: str) -> str:
    """Return an override's text so that it is read as the type of the value that it replaces."""
    is_none = text.strip() == "None"
    if isinstance(value, str):
        return "" if is_none else text
    if isinstance(value, tuple):
        return "()" if is_none else _spell_out_tuple(value, text)
    if is_none and isinstance(value, int | float):
        raise UserError(f"--{name}=None: the option is {value!r} and cannot be None. Give a value, or leave it out.")
    is_whole = re.fullmatch(r"\d+(\.\d+)?e\+?\d+", text, re.I) and float(text).is_integer()
    return str(int(float(text))) if type(value) is int and is_whole else text


def _spell_out_tuple(value: tuple, text: str) -> str:
    if text.lstrip()[:1] in ("(", "[", "'", '"'):
        return text
    items = [item for item in map(str.strip, text.split(",")) if item]
    is_text = any(isinstance(item, str) for item in value)
    if is_text or not all(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", item, re.I) for item in items):
        return repr(tuple(items))
    return text if items else "()"


def config_to_json(config: Section) -> str:
    """Write a config as JSON text that `load_config_json` reads; tuples become lists."""
    return json.dumps(to_plain(config), indent=2) + "\n"


def save_config_json(config: Section, path: str | Path) -> None:
    """Write a config to a JSON file, whole or not at all, and a checksum beside it."""
    save_with_checksum(path, config_to_json(config))


def load_config_json(path: str | Path) -> ConfigDict:
    """Read a config that was saved with a run; raise a `UserError` if it is missing, damaged or was changed since."""
    if not Path(path).is_file():
        raise UserError(f"Config file {path} is not there. Give the config.json of a run's folder.")
    check_checksum(path)
    advice = "Restore the file, or give the config.json of a run's folder."
    try:
        return ConfigDict(read_json(path, advice=advice))
    except ValueError as error:  # a key with a dot
        raise UserError(f"{path}: is not a config ({error}). {advice}") from error


def diff_overrides(default: Section, actual: Section) -> dict[str, Any]:
    """List what was overridden: dotted key -> value in `actual`, where `default` has another value or none."""
    before, after = _flatten(to_plain(default)), _flatten(to_plain(actual))
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
