"""Named objects: what a config's sections name, and what those are built from.

A section has a `name` and the options of the builder that is registered under it. What a builder needs besides, it is
given: a parameter that is not an option, such as `tokenizer: Tokenizer`, is the object of the section that has its
name, built once for all that need it.

    config.data = {"name": "hiring", "folder": "data/mine"}
    config.tokenizer = {"name": "trained_bpe"}            # build_trained_bpe(data: HiringData, *, vocab_size=1400)
    config.dataset = {"name": "hiring_rewrites"}          # build_dataset(data: HiringData, tokenizer: Tokenizer, ...)
"""

import dataclasses
import importlib
import importlib.metadata
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from ilqljax.config import sections
from ilqljax.config.files import import_file, resolve_path
from ilqljax.config.sections import Option, Section, list_fields, suggest, to_plain
from ilqljax.errors import UserError

T = TypeVar("T", bound=Callable)
TASKS = "ilqljax.tasks"  # the group of the entry points that name installed tasks


class Builder(NamedTuple):
    """A registered function or class, its options, and the parameters that other sections' objects fill.

    Attributes:
        documented: the function and the dataclasses whose docstrings say what the options are.
    """

    function: Callable
    options: dict[str, Option]
    needs: dict[str, Option]
    wants_context: bool
    documented: tuple[Callable, ...]


# kind -> name -> builder. Filled by `register` when modules are imported, never changed afterwards.
_BUILDERS: dict[str, dict[str, Builder]] = {}


@dataclasses.dataclass
class BuildContext:
    """What the objects of one run share: values of the program (its seed) by name, and the named sections by key."""

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    _built: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def build(self, key: str) -> Any:
        """Return the object of the section `config.KEY`, built once; errors are `build`'s."""
        if key not in self.sections:
            raise UserError(f"The config has no section {key!r}.{suggest(key, self.sections)}")
        if key not in self._built:
            self._built[key] = build(infer_kind(key), self.sections[key], context=self, path=f"config.{key}")
        return self._built[key]


def register(kind: str, name: str, *, options: type | tuple[type, ...] = ()) -> Callable[[T], T]:
    """Register a builder (a function, a class or a frozen dataclass) as the object `name` of a kind.

    The parameters of plain types of a function or class, and all fields of a dataclass, are its options. A parameter
    called `context` gets the `BuildContext`, any other one the object of the section of its name.

    Fields of the dataclasses `options` are options of it too, which it takes as `**options` (`split_options`).

    Raises:
        ValueError: another builder has that name.
    """

    def decorate(builder: T) -> T:
        found = _BUILDERS.setdefault(kind, {}).setdefault(name, _read_builder(builder, options))
        # The same definition may come twice: a module run as a program is imported again by others.
        first, second = found.function.__qualname__, builder.__qualname__
        if first != second:
            raise ValueError(f"{kind} {name!r} is registered twice: {first} and {second}.")
        return builder

    return decorate


def _read_builder(function: Callable, options: type | tuple[type, ...]) -> Builder:
    if dataclasses.is_dataclass(function):
        return Builder(function, list_fields(function), {}, wants_context=False, documented=(function,))
    parameters = sections.list_parameters(function)
    wants_context = parameters.pop("context", None) is not None
    needs = {name: p for name, p in parameters.items() if not _is_plain(p.annotation)}
    found = {name: p for name, p in parameters.items() if name not in needs}
    classes = (options,) if isinstance(options, type) else options
    for cls in classes:
        found |= list_fields(cls)
    return Builder(function, found, needs, wants_context, (function, *classes))


def _is_plain(annotation: Any) -> bool:
    """Tell whether a config can give a value of this annotation; one that is missing says nothing, so it can."""
    if typing.get_origin(annotation) is not None:
        return all(map(_is_plain, typing.get_args(annotation)))
    plain = (int, float, bool, str, tuple, dict, list, type(None), Ellipsis, inspect.Parameter.empty)
    return annotation in plain or not isinstance(annotation, type)


def split_options(options: Mapping[str, Any], *classes: type) -> list[dict[str, Any]]:
    """Deal the options of a builder out to the dataclasses that declare them."""
    return [{name: options[name] for name in list_fields(cls) if name in options} for cls in classes]


def load_tasks(imports: Iterable[str] = ()) -> None:
    """Import what registers tasks: every installed one, and what a run names besides.

    An installed package offers a task as an entry point of the group `ilqljax.tasks`, whose value is the module that
    calls `register`. A task that is not installed is named in `config.imports`, as a Python file or a dotted module.
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
                f"config.imports names {name!r}, and there is no such module. Install it, or give the path of a file."
            ) from error


def _import_file(name: str) -> None:
    """Import a Python file that is in no package, once."""
    path = resolve_path(name)
    if not path.is_file():
        raise UserError(f"{name}: there is no such Python file. Give the path of the one that registers the task.")
    known = f"ilqljax_imports:{path}"  # no other module has this name, whatever files are called
    if known not in sys.modules:
        import_file(known, path, keep=True)


def complete_section(kind: str, section: Section, *, path: str = "config") -> dict[str, Any]:
    """Return a named section with the defaults of all the options that it leaves out, sections within it alike."""
    plain = to_plain(section)
    builder = find_builder(kind, plain, path=path)
    nested = {
        key: complete_section(infer_kind(key), value, path=f"{path}.{key}")
        for key, value in plain.items()
        if is_named(value) and key in builder.needs
    }
    return sections.fill_defaults(builder.options, plain | nested)


def build(kind: str, section: Section, *, context: BuildContext, path: str = "config") -> Any:
    """Build the object that a section names; an unknown name or key, or something that is missing, is a `UserError`.

    Its options are checked as `from_section` checks fields. What the builder needs besides is the context's, or that of
    a section within this one, whose kind is its key, or the key's last word: `reward`, and `held_out_matcher` is a
    `matcher`.
    """
    plain = to_plain(section)
    builder = find_builder(kind, plain, path=path)
    arguments = {key: value for key, value in plain.items() if key != "name"}
    nested = {key: value for key, value in arguments.items() if is_named(value)}
    shared = [name for name in builder.needs if name not in nested and name in context.sections]
    # All keys are checked before other objects are built, so that a misspelt one costs no work.
    what = f"{kind} {plain['name']!r}"
    known = builder.options | builder.needs
    checked = sections.check_arguments(known, arguments, path=path, what=what, unchecked=[*nested, *shared])
    for key, value in nested.items():
        checked[key] = build(infer_kind(key), value, context=context, path=f"{path}.{key}")
    checked |= {name: context.build(name) for name in shared}
    if builder.wants_context:
        checked["context"] = context
    return builder.function(**checked)


def is_named(section: Any) -> bool:
    """Tell whether a value is a section that names an object."""
    return isinstance(section, Mapping) and "name" in section


def find_builder(kind: str, plain: Mapping[str, Any], *, path: str) -> Builder:
    """Return the builder that a section names; raise a `UserError` if there is none."""
    known = _BUILDERS.get(kind, {})
    if not isinstance(plain.get("name"), str):
        raise UserError(f"{path} has no name, which says what {kind} to build. Known: {', '.join(sorted(known))}.")
    if plain["name"] not in known:
        raise UserError(f"{path}.name={plain['name']!r} is not a known {kind}.{suggest(plain['name'], known)}")
    return known[plain["name"]]


def list_names(kind: str) -> list[str]:
    """List the names of a kind's objects."""
    return sorted(_BUILDERS.get(kind, {}))


def infer_kind(key: str) -> str:
    """Return the kind of a section by its key: the key itself, or its last word."""
    return key if key in _BUILDERS else key.rpartition("_")[2]
