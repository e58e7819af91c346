"""The layering of the package: who may import whom, read from the source and not from what happens to run."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ilqljax"

# From low to high. A module imports from rows above its own in this table, and from its own group; two groups of one
# row do not know each other. A group is a module or a package of `ilqljax`.
ROWS = (
    ("errors",),
    ("files", "hub"),
    ("types", "config", "cli", "compilation", "flops", "processes"),
    ("half_products",),
    ("losses", "vocabulary", "data", "envs", "fairness"),
    ("models", "optim", "sharding"),
    ("state", "checksums"),
    ("steps", "objectives", "decoding"),
    ("algorithms", "tasks"),
    ("checkpoint", "metrics", "evals", "runs", "parity", "inspection", "audit"),
    ("stage", "bench", "experiments"),
    ("evaluate",),
    ("train", "rewrite"),
)
LEVELS = {group: level for level, row in enumerate(ROWS) for group in row}

# Libraries that are kept behind one door.
ONLY_IN = {
    "flax": ("ilqljax/models/",),
    "grain": ("ilqljax/data/loader.py",),
    "orbax": ("ilqljax/checkpoint.py",),
}

# NumPy-level code, which a user's machine without an accelerator runs, may not pull jax in when it is imported,
# `ilqljax.types` apart. What acts (`evaluation`), what searches on devices and what registers everything (`objects`,
# `matchers`) are no data code.
NUMPY_LEVEL = ("ilqljax.fairness", "ilqljax.data", "ilqljax.envs", "ilqljax.tasks.hiring", "ilqljax.tasks.wordle")
USES_JAX = (
    "ilqljax.data.loader",
    "ilqljax.fairness.dense_matching",
    "ilqljax.tasks.hiring.evaluation",
    "ilqljax.tasks.hiring.language_model",
    "ilqljax.tasks.hiring.matchers",
    "ilqljax.tasks.hiring.objects",
    "ilqljax.tasks.wordle.evaluation",
    "ilqljax.tasks.wordle.objects",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
OUTSIDE = sorted([*(ROOT / "configs").glob("*.py"), *(ROOT / "scripts").glob("*.py")])


def find_imports(node: ast.AST, *, nested: bool = True) -> Iterator[tuple[str, int]]:
    """Yield the dotted names that are imported, and their lines; what is imported inside functions if `nested`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno} imports relatively: write the module's full name"
            # `from ilqljax.models import heads` imports a module, `from ilqljax.types import Array` does not.
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in SOURCES else child.module, child.lineno
        elif nested or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from find_imports(child, nested=nested)


@functools.cache
def imports_of(path: Path, *, nested: bool = True) -> set[tuple[str, int]]:
    return set(find_imports(ast.parse(path.read_text(encoding="utf-8")), nested=nested))


def group_of(name: str) -> str:
    """Return `models` for `ilqljax.models.gpt2`, and "" for the package itself."""
    return name.partition(".")[2].partition(".")[0]


def test_the_table_lists_what_there_is():
    groups = {group_of(name) for name in SOURCES} - {""}
    assert groups == set(LEVELS), "every module and package of ilqljax needs a place in ROWS, and nothing else has one"


@pytest.mark.parametrize("name", [name for name in SOURCES if group_of(name)])
def test_module_imports_only_from_lower_rows(name):
    own = group_of(name)
    wrong = []
    for imported, line in sorted(imports_of(SOURCES[name])):
        if imported.partition(".")[0] != "ilqljax":
            continue
        other = group_of(imported)
        if other != own and (not other or LEVELS.get(other, 0) >= LEVELS.get(own, len(ROWS))):
            wrong.append(f"{SOURCES[name].relative_to(ROOT)}:{line} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_imports_inside_the_package_make_no_cycle():
    graph = {name: {i for i, _ in imports_of(path) if i in SOURCES} - {name} for name, path in SOURCES.items()}
    while free := [name for name, imported in graph.items() if not imported]:
        graph = {name: imported - set(free) for name, imported in graph.items() if name not in free}
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_behind_one_door(library):
    users = {
        path.relative_to(ROOT).as_posix()
        for path in [*SOURCES.values(), *OUTSIDE]
        if any(imported.partition(".")[0] == library for imported, _ in imports_of(path))
    }
    assert users, f"nothing imports {library} any more: drop the rule"
    assert all(user.startswith(ONLY_IN[library]) for user in users), users


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_import_only_the_config_module(path):
    roots = {imported for imported, _ in imports_of(path)}
    # One config may build on another.
    assert roots <= {"configs", "configs._algorithms", "ilqljax.config", "ml_collections"}, roots


@pytest.mark.parametrize("path", [*SOURCES.values(), *OUTSIDE], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_imports_scripts_or_tests(path):
    assert not {i for i, _ in imports_of(path) if i.partition(".")[0] in ("scripts", "tests")}


def reach(name: str) -> set[str]:
    """Return everything that importing a module imports, the package's own modules followed, `ilqljax.types` not."""
    seen, queue = set(), [name]
    while queue:
        for imported, _ in imports_of(SOURCES[queue.pop()], nested=False):
            parents = {imported.rsplit(".", n)[0] for n in range(imported.count(".") + 1)}
            new = (parents & set(SOURCES) or {imported}) - seen - {"ilqljax.types"}
            seen |= new
            queue += [i for i in new if i in SOURCES]
    return seen


@pytest.mark.parametrize(
    "name", [name for name in SOURCES if name.startswith(NUMPY_LEVEL) and not name.startswith(USES_JAX)]
)
def test_numpy_level_code_does_not_import_jax(name):
    heavy = {i for i in reach(name) if i.partition(".")[0] in ("jax", "flax", "optax", "orbax", "grain")}
    assert not heavy, heavy
