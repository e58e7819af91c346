"""Sections of a config as checked keyword arguments: of a dataclass, or of a builder.

A field or parameter is an option, and its annotation says which values it takes. A dataclass field with the metadata
`NO_OPTION` is for programs only: no config may set it.
"""

import contextlib
import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from ilqljax.errors import UserError, check_type, find_close

T = TypeVar("T")
Section: typing.TypeAlias = ConfigDict | Mapping[str, Any]
REQUIRED = inspect.Parameter.empty
NO_OPTION = types.MappingProxyType({"option": False})


class Option(typing.NamedTuple):
    """An option's annotation and default; `REQUIRED` where there is none."""

    annotation: Any
    default: Any


def from_section(cls: type[T], section: Section, *, path: str = "config", hidden: bool = False) -> T:
    """Make a dataclass instance from a config section; a wrong name or type is a `UserError` that says where it is.

    An int is taken for a float, a list for a tuple, and a section for a field that is itself a dataclass. Nothing else
    is converted: 0.5 for an int, "3" for a number or None for anything is refused.

    With `hidden`, fields with the metadata `NO_OPTION` may be given too, as in a file that a program wrote.
    """
    fields = list_parameters(cls) if hidden else list_fields(cls)
    return cls(**check_arguments(fields, to_plain(section), path=path, what=cls.__name__))


def to_plain(value: Any) -> Any:
    """Copy a section to plain dicts, with field references resolved; other values are returned as they are."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    return value


def list_fields(cls: type) -> dict[str, Option]:
    """List a dataclass's options: its fields, but those with the metadata `NO_OPTION`."""
    hidden = {field.name for field in dataclasses.fields(cls) if not field.metadata.get("option", True)}
    return {name: option for name, option in list_parameters(cls).items() if name not in hidden}


def list_parameters(function: Callable) -> dict[str, Option]:
    """List what a function or class can be given by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function, eval_str=True).parameters
    found = {name: Option(p.annotation, p.default) for name, p in parameters.items() if p.kind in by_name}
    if dataclasses.is_dataclass(function):  # the signature of a default factory shows no value
        for field in dataclasses.fields(function):
            if field.name in found and field.default_factory is not dataclasses.MISSING:
                found[field.name] = found[field.name]._replace(default=field.default_factory())
    return found


def fill_defaults(options: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's values with the defaults of the options that it leaves out, sections within it alike.

    Defaults of None are left out: they stand for what a config cannot give.
    """
    filled = dict(values)
    for name, option in options.items():
        default = option.default
        if name not in values and default is not REQUIRED and default is not None:
            is_object = dataclasses.is_dataclass(default) and not isinstance(default, type)
            filled[name] = dataclasses.asdict(default) if is_object else default
        elif isinstance(values.get(name), Mapping) and dataclasses.is_dataclass(kind := option.annotation):
            filled[name] = fill_defaults(list_fields(kind if isinstance(kind, type) else type(kind)), values[name])
    return filled


def check_arguments(
    options: Mapping[str, Option], values: dict[str, Any], *, path: str, what: str, unchecked: Iterable[str] = ()
) -> dict[str, Any]:
    """Check values against options' names and annotations, and convert them as `from_section` says.

    Of the keys in `unchecked` only the names are checked, and they count as given where they are not in `values`.
    """
    check_type(Mapping, f"Give options of {what} by name, as a mapping.", **{path: values})
    for key in values:
        if key not in options:
            raise UserError(f"{path}.{key} is not an option of {what}.{suggest(key, options)}")
    required = {name for name, option in options.items() if option.default is REQUIRED}
    if missing := sorted(required - values.keys() - set(unchecked)):
        raise UserError(f"{path} lacks {', '.join(missing)}, which {what} needs. Set {path}.{missing[0]}.")
    return {
        key: value if key in unchecked else _check_value(value, options[key].annotation, path=f"{path}.{key}")
        for key, value in values.items()
    }


def _check_value(value: Any, expected: Any, *, path: str) -> Any:
    """Check one value against an annotation; annotations other than those listed here are not checked."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            with contextlib.suppress(UserError):
                return _check_value(value, option, path=path)
        raise _wrong_type(value, expected, path=path)
    if value is None and expected is not types.NoneType:
        raise UserError(f"{path} is None. Give a value (0 or '' where it is to be off), or leave the key out.")
    if isinstance(expected, type) and dataclasses.is_dataclass(expected) and isinstance(value, Mapping):
        return from_section(expected, value, path=path)
    if origin is typing.Literal:
        if value not in args:
            raise UserError(f"{path}={value!r} is unknown. Known values: {', '.join(map(repr, args))}.")
        return value
    if origin is tuple or expected is tuple:
        return _check_tuple(value, args, path=path)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if expected is float and number:
        return float(value)
    checked = expected in (int, float, bool, str, dict, types.NoneType) or dataclasses.is_dataclass(expected)
    if checked and (not isinstance(value, expected) or (expected is int and not number)):
        raise _wrong_type(value, expected, path=path)
    return value


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


def _wrong_type(value: Any, expected: Any, *, path: str) -> UserError:
    wanted = getattr(expected, "__name__", str(expected)) if typing.get_origin(expected) is None else str(expected)
    return UserError(
        f"{path}={value!r} is of type {type(value).__name__}, not {wanted}. Give a value of type {wanted}."
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """Word the closest match, if there is one, and the known names."""
    known = sorted(known)
    return f"{find_close(name, known)} Known: {', '.join(known) or 'none'}."
