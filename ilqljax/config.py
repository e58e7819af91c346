"""Configuration at the border: `ConfigDict`s in, checked frozen dataclasses and named objects out.

A config file holds `get_config(arg)`, which `parse_arg` helps to read. The program turns the sections of the config
into dataclasses (`from_section`) or into registered objects (`build`), and everything inside sees only those.
"""

import dataclasses
import difflib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from ilqljax.data.files import check_checksum, read_json, save_with_checksum
from ilqljax.errors import UserError

T = TypeVar("T")
Section = ConfigDict | Mapping[str, Any]

# Keys of a named object's section that are not handed to its builder.
RESERVED = ("name", "cache_id")


# --- The argument of get_config ---------------------------------------------------------------------------------------


def parse_arg(arg: str, **choices: tuple[str, ...]) -> types.SimpleNamespace:
    """Read the comma list after a config file's colon as one pick per choice.

    `parse_arg(arg, algorithm=("bc+ilql", "bc", "ilql"), size=("tiny", "gpt2"))`:

    | arg         | algorithm | size |
    |-------------|-----------|------|
    | ""          | bc+ilql   | tiny |
    | "bc"        | bc        | tiny |
    | "gpt2,ilql" | ilql      | gpt2 |

    Args:
        arg: what follows the colon of `configs/task.py:arg`; may be empty.
        **choices: for each choice its flags, all different; the first one is what an absent flag means.

    Returns:
        A namespace with the picked flag of every choice.

    Raises:
        UserError: a flag is unknown, or two flags answer the same choice.
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


# --- Sections to dataclasses ------------------------------------------------------------------------------------------


def from_section(cls: type[T], section: Section, *, path: str = "config") -> T:
    """Make a dataclass instance from a config section, checking names and types.

    An int is taken for a float, a list for a tuple, and a section for a field that is itself a dataclass. Nothing else
    is converted: 0.5 for an int, "3" for a number or None for anything is refused.

    Args:
        cls: a dataclass whose fields are annotated.
        section: its values; fields left out keep their defaults.
        path: where the section is in the config, for messages.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type.
    """
    return cls(**_check_arguments(cls, to_plain(section), path=path, what=cls.__name__))


def to_plain(value: Any) -> Any:
    """Copy a section to plain dicts, with field references resolved; other values are returned as they are."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    return value


def _check_arguments(
    function: Callable, values: dict[str, Any], *, path: str, what: str, unchecked: Iterable[str] = ()
) -> dict[str, Any]:
    """Check values against a signature's names and annotations, and convert them as `from_section` says.

    Of the keys in `unchecked` only the names are checked.
    """
    parameters = _read_parameters(function)
    for key in values:
        if key not in parameters:
            raise UserError(f"{path}.{key} is no option of {what}.{_suggest(key, parameters)}")
    required = {name for name, p in parameters.items() if p.default is inspect.Parameter.empty}
    missing = sorted(required - values.keys())
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}, which {what} needs. Set {path}.{missing[0]}.")
    return {
        key: value if key in unchecked else _check_value(value, parameters[key].annotation, path=f"{path}.{key}")
        for key, value in values.items()
    }


def _read_parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """List what a builder or dataclass can be given by name; `context` is handed in by `build`."""
    parameters = inspect.signature(function, eval_str=True).parameters
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in parameters.items() if p.kind in by_name and name != "context"}


def _check_value(value: Any, expected: Any, *, path: str) -> Any:
    """Check one value against an annotation; annotations other than those listed here are not checked."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if value is None and expected is not types.NoneType and origin not in (typing.Union, types.UnionType):
        raise UserError(f"{path} is None. Give a value (0 or '' where it is to be off), or leave the key out.")
    if dataclasses.is_dataclass(expected) and isinstance(value, Mapping):
        return from_section(expected, value, path=path)
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, expected, path=path)
    if origin is typing.Literal:
        if value not in args:
            known = ", ".join(map(repr, args))
            raise UserError(f"{path}={value!r} is unknown. Known values: {known}.")
        return value
    if origin is tuple or expected is tuple:
        return _check_tuple(value, args, path=path)
    if expected is float and _is_number(value):
        return float(value)
    if expected is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong_type(value, expected, path=path)
    checked = expected in (float, bool, str, dict, types.NoneType) or dataclasses.is_dataclass(expected)
    if checked and not isinstance(value, expected):
        raise _wrong_type(value, expected, path=path)
    return value


def _check_union(value: Any, expected: Any, *, path: str) -> Any:
    for option in typing.get_args(expected):
        try:
            return _check_value(value, option, path=path)
        except UserError:
            continue
    raise _wrong_type(value, expected, path=path)


def _check_tuple(value: Any, args: tuple, *, path: str) -> tuple:
    if not isinstance(value, tuple | list):
        raise _wrong_type(value, tuple, path=path)
    if not args:
        return tuple(value)
    items = (args[0],) * len(value) if args[1:] == (...,) else args
    if len(items) != len(value):
        raise UserError(f"{path}={value!r} has {len(value)} items. Give {len(items)}.")
    return tuple(
        _check_value(v, item, path=f"{path}[{i}]") for i, (v, item) in enumerate(zip(value, items, strict=True))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong_type(value: Any, expected: Any, *, path: str) -> UserError:
    wanted = getattr(expected, "__name__", str(expected)) if typing.get_origin(expected) is None else str(expected)
    return UserError(
        f"{path}={value!r} is of type {type(value).__name__}, not {wanted}. Give a value of type {wanted}."
    )


def _suggest(name: str, known: Iterable[str]) -> str:
    """Word the closest match, if there is one, and the known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(known) or 'none'}."


# --- Named objects ----------------------------------------------------------------------------------------------------

# kind -> name -> builder. Filled by `register` when modules are imported, never changed afterwards.
_BUILDERS: dict[str, dict[str, Callable]] = {}


@dataclasses.dataclass
class BuildContext:
    """What the objects of one run share: those with a `cache_id`, and `values` that are not configuration.

    Attributes:
        values: things a builder may need from the program (a mesh, the run's folder, a seed), by name.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _built: dict[tuple[str, str], tuple[dict, Any]] = dataclasses.field(default_factory=dict, repr=False)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Register a builder (a function, a class or a frozen dataclass) as the object `name` of a kind.

    The builder's parameters are the keys its section may have. A parameter called `context` gets the `BuildContext`.
    """

    def decorate(builder: T) -> T:
        known = _BUILDERS.setdefault(kind, {}).setdefault(name, builder)
        # The same definition may come twice: a module run as a program is imported again by others.
        if known is not builder and known.__qualname__ != builder.__qualname__:
            raise ValueError(f"{kind} {name!r} is registered twice: {known.__qualname__} and {builder.__qualname__}.")
        return builder

    return decorate


TASKS = "ilqljax.tasks"  # the group of the entry points that name installed tasks


def load_tasks(imports: Iterable[str] = ()) -> None:
    """Import what registers tasks: every installed one, and what a run names besides.

    An installed package offers a task as an entry point of the group `ilqljax.tasks`, whose value is the module that
    calls `register`. A task that is not installed is named in `config.imports`, as a Python file or a dotted module.

    Args:
        imports: files ("mine/task.py", as `resolve_path` finds them) and modules ("mine.task").

    Raises:
        UserError: there is no such file or module.
    """
    for entry in importlib.metadata.entry_points(group=TASKS):
        entry.load()
    for name in imports:
        if name.endswith(".py"):
            _import_file(name)
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # one that the module itself needs
                raise
            raise UserError(
                f"config.imports names {name!r}, and there is no such module. Install its package, or give the path of "
                "the Python file that registers the task."
            ) from error


def _import_file(name: str) -> None:
    """Import a Python file that is in no package, once."""
    path = resolve_path(name)
    if not path.is_file():
        raise UserError(f"{name}: there is no such Python file. Give the path of the one that registers the task.")
    known = f"ilqljax_imports:{path}"  # no other module has this name, whatever files are called
    if known in sys.modules:
        return
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(known, path))
    sys.modules[known] = module  # dataclasses look their module up while it is being run
    try:
        module.__spec__.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise


def build(kind: str, section: Section, *, context: BuildContext, path: str = "config") -> Any:
    """Build the object that a section names.

    Keys other than `name` and `cache_id` are the builder's arguments, checked as `from_section` checks fields. One that
    is itself a section with a `name` is built first; its kind is its key, or the key's last word: `reward`, and
    `train_dataset` is a `dataset`. Sections with equal non-empty `cache_id` are one object per context and kind.

    Args:
        kind: what is wanted: "model", "dataset", "environment" and so on.
        section: `name`, the builder's arguments, and optionally `cache_id`.
        context: holds the shared objects.
        path: where the section is in the config, for messages.

    Raises:
        UserError: an unknown name or key, a value of the wrong type, or a `cache_id` used for different contents.
    """
    plain = to_plain(section)
    builder = _find_builder(kind, plain, path=path)
    cache_id = _check_value(plain.get("cache_id", ""), str, path=f"{path}.cache_id")
    if cache_id and (kind, cache_id) in context._built:
        contents, built = context._built[kind, cache_id]
        if contents != plain:
            differing = sorted(diff_overrides(contents, plain) | diff_overrides(plain, contents))
            raise UserError(
                f"{path} shares cache_id={cache_id!r} with another {kind} but differs in {', '.join(differing)}. "
                "Make the two sections equal, or give one of them another cache_id."
            )
        return built
    arguments = {key: value for key, value in plain.items() if key not in RESERVED}
    nested = {key: value for key, value in arguments.items() if isinstance(value, Mapping) and "name" in value}
    # All keys are checked before nested objects are built, so that a misspelt one costs no work.
    checked = _check_arguments(builder, arguments, path=path, what=f"{kind} {plain['name']!r}", unchecked=nested)
    for key, value in nested.items():
        checked[key] = build(_infer_kind(key), value, context=context, path=f"{path}.{key}")
    if "context" in inspect.signature(builder).parameters:
        checked["context"] = context
    built = builder(**checked)
    if cache_id:
        context._built[kind, cache_id] = (plain, built)
    return built


def _find_builder(kind: str, plain: dict[str, Any], *, path: str) -> Callable:
    known = _BUILDERS.get(kind, {})
    if not isinstance(plain.get("name"), str):
        raise UserError(f"{path} has no name, which says what {kind} to build. Known: {', '.join(sorted(known))}.")
    if plain["name"] not in known:
        raise UserError(f"{path}.name={plain['name']!r} is no known {kind}.{_suggest(plain['name'], known)}")
    return known[plain["name"]]


def _infer_kind(key: str) -> str:
    return key if key in _BUILDERS else key.rpartition("_")[2]


# --- Paths, files, overrides ------------------------------------------------------------------------------------------


def resolve_path(path: str | Path, *, root: Path | None = None) -> Path:
    """Resolve a path from a config: absolute, `~`, in the current directory if there, else below the repository root.

    Args:
        path: what the user wrote.
        root: stands in for the repository root; an installed package has none, and the current directory is taken.

    Raises:
        UserError: the path is empty.
    """
    if not str(path).strip():
        raise UserError("A path is empty. Give one that is absolute or relative to the repository root.")
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given.absolute()
    return ((root or find_root() or Path.cwd()) / given).absolute()


def find_root() -> Path | None:
    """Find the repository root: the folder above the package with `configs/` and `pyproject.toml`; None without one."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "configs").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return None


def load_config_file(path_with_arg: str) -> ConfigDict:
    """Load "configs/task.py:arg" as the command-line programs do: `get_config("arg")`, or `get_config()` without arg.

    Raises:
        UserError: the file is not there or has no `get_config`.
    """
    name, colon, arg = str(path_with_arg).partition(":")
    path = resolve_path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in path.parent.glob("*.py") if not p.name.startswith("_")))
        raise UserError(f"Config file {path} is not there. Config files in {path.parent}: {known or 'none'}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"Config file {path} is no Python file. Give one that ends in .py and defines get_config(arg).")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"Config file {path} defines no get_config(arg). Add it; it returns a ConfigDict.")
    return module.get_config(arg) if colon else module.get_config()


def check_override_names(config: ConfigDict, arguments: Iterable[str]) -> None:
    """Refuse command-line overrides (`--config.train.lr=1`) of keys that the config does not have.

    Raises:
        UserError: the first unknown key, with the closest match and all keys of its section.
    """
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        section: Any = config
        path = "config"
        for key in name.split(".")[1:]:
            if not isinstance(section, ConfigDict):
                raise UserError(f"--{name}: {path} is a value, not a section. Set --{path}=... instead.")
            if key not in section:
                raise UserError(f"--{name}: {path} has no key {key!r}.{_suggest(key, section.keys())}")
            section, path = section[key], f"{path}.{key}"


def config_to_json(config: Section) -> str:
    """Write a config as JSON text that `load_config_json` reads; tuples become lists."""
    return json.dumps(to_plain(config), indent=2) + "\n"


def save_config_json(config: Section, path: str | Path) -> None:
    """Write a config to a JSON file, whole or not at all, and a checksum beside it."""
    save_with_checksum(path, config_to_json(config))


def load_config_json(path: str | Path) -> ConfigDict:
    """Read a config that was saved with a run.

    Raises:
        UserError: the file is not there, was changed since it was saved, or is no config in JSON; names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"Config file {path} is not there. Give the config.json of a run's folder.")
    check_checksum(path)
    advice = "Restore the file, or give the config.json of a run's folder."
    values = read_json(path, advice=advice)
    try:
        return ConfigDict(values)
    except ValueError as error:  # a key with a dot
        raise UserError(f"{path}: is no config ({error}). {advice}") from error


def require_keys(config: ConfigDict, kinds: Mapping[str, type], *, path: str | Path) -> None:
    """Raise a `UserError` unless a saved config has each of these keys, with a value of its kind."""
    if wrong := [name for name, kind in kinds.items() if not isinstance(config.get(name), kind)]:
        raise UserError(f"{path}: {', '.join(wrong)} missing or of another kind. Restore the file that training wrote.")


def diff_overrides(default: Section, actual: Section) -> dict[str, Any]:
    """List what was overridden: dotted key -> value in `actual`, where `default` has another value or none."""
    before, after = _flatten(to_plain(default)), _flatten(to_plain(actual))
    return {key: value for key, value in after.items() if key not in before or before[key] != value}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
