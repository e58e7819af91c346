"""What checks the shapes that annotations of arrays name, while tests run."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import beartype
import jaxtyping
from jaxtyping import AbstractArray


def find_modules_with_shapes(root: Path) -> list[str]:
    """Return the modules that annotate shapes; to wrap the functions of the others would only cost time."""
    sources = [path for package in ("ilqljax", "benchmarks") for path in sorted((root / package).rglob("*.py"))]
    named = [path for path in sources if "\nfrom jaxtyping import " in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in named]


def check_shapes(function: Callable) -> Callable:
    """Check the arguments and results of a function whose annotations name shapes, and leave all else to mypy.

    Tests hand over stand-ins for judges, matchers and writers, which need not be of the class that is annotated.
    """
    hints = {name: hint for name, hint in function.__annotations__.items() if names_a_shape(hint)}
    if not hints:
        return function
    function.__annotations__ = hints
    return beartype.beartype(function)


def names_a_shape(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(names_a_shape(part) for part in get_args(hint))


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave shapes unchecked, as they are for a user, where the package itself is to refuse a wrong one."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
