"""The layering of the package: who may import whom, read from the source and not from what happens to run."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ilqljax

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ilqljax"

# From low to high. A module imports from rows above its own in this table, and from its own room; two rooms of one
# row do not know each other. A room is a module or a package of `ilqljax`.
ROWS = (
    ("errors",),
    ("data", "envs"),
    ("config", "cli"),
    ("models",),
    ("rl", "decoding"),
    ("training",),
    ("train", "evaluate"),
    ("hiring", "wordle"),
    ("audit", "rewrite"),
    ("__main__",),
)
LEVELS = {room: level for level, row in enumerate(ROWS) for room in row}
# The tasks. No room of the library imports one; they are found through entry points (`ilqljax.config.load_tasks` and
# `ilqljax.cli.list_commands`).
TASKS = ("hiring", "wordle")

# Libraries that are kept behind one door.
ONLY_IN = {
    "flax": ("ilqljax/models/",),
    "grain": ("ilqljax/data/loader.py",),
    "httpx": ("ilqljax/hiring/matching/http.py",),
    "jinja2": ("ilqljax/data/pages.py", "ilqljax/data/chat.py"),
    "matplotlib": ("ilqljax/data/drawings.py", "ilqljax/hiring/audit/page.py", "scripts/make_pictures.py"),
    "orbax": (
        "ilqljax/training/checkpoint.py",
        "ilqljax/training/processes.py",
        "ilqljax/training/step_files.py",
    ),
    "psycopg": ("ilqljax/hiring/matching/postgres.py",),
    "sklearn": ("ilqljax/hiring/matching/lexical.py", "ilqljax/hiring/matching/matcher.py"),
    "tenacity": ("ilqljax/hiring/matching/http.py",),
}

# NumPy-level code, which a user's machine without an accelerator runs, may not pull jax in when it is imported; nor
# may a command, whose --help is to be quick. What acts, what searches on devices and what registers everything
# (`task`) is not data code: `USES_JAX` lists these modules, the exceptions from the rule.
NUMPY_LEVEL = ("ilqljax.cli", "ilqljax.data", "ilqljax.envs", "ilqljax.hiring", "ilqljax.wordle")
NUMPY_LEVEL += ("ilqljax.decoding.options", "ilqljax.training.commands")
USES_JAX = (
    "ilqljax.data.loader",
    "ilqljax.hiring.evaluation.judge",
    "ilqljax.hiring.guardrails.language_model",
    "ilqljax.hiring.matching.dense",
    "ilqljax.hiring.matching.encoders",
    "ilqljax.hiring.rewrite",
    "ilqljax.hiring.rounds",
    "ilqljax.hiring.task",
    "ilqljax.hiring.writer",
    "ilqljax.wordle.evaluation",
    "ilqljax.wordle.task",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
OUTSIDE = [*CONFIGS, *sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def find_imports(node: ast.AST, *, nested: bool = True) -> Iterator[tuple[str, int]]:
    """Yield the dotted names that are imported, and their lines.

    With `nested` also what is imported inside functions, or for type checkers only.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.level:  # only a config's neighbours, whose folder has another name in a wheel
                yield "." * child.level + (child.module or ""), child.lineno
                continue
            # `from ilqljax.models import heads` imports a module, `from ilqljax.data.types import Array` does not.
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in SOURCES else child.module, child.lineno
        elif nested or not (isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_type_checkers(child)):
            yield from find_imports(child, nested=nested)


@functools.cache
def imports_of(path: Path, *, nested: bool = True) -> set[tuple[str, int]]:
    return set(find_imports(ast.parse(path.read_text(encoding="utf-8")), nested=nested))


def room_of(name: str) -> str:
    """Return `models` for `ilqljax.models.gpt2`, and "" for the package itself."""
    return name.partition(".")[2].partition(".")[0]


def import_pairs() -> Iterator[tuple[str, str, str]]:
    """Yield, for each import of one room by another, both rooms, and where it stands."""
    for name, path in SOURCES.items():
        for imported, line in sorted(imports_of(path)):
            if imported.partition(".")[0] == "ilqljax" and room_of(imported) != room_of(name) and room_of(name):
                yield room_of(name), room_of(imported), f"{path.relative_to(ROOT)}:{line} imports {imported}"


def test_the_table_lists_what_there_is_and_the_house_is_small():
    rooms = {room_of(name) for name in SOURCES} - {""}
    assert rooms <= set(LEVELS), f"{sorted(rooms - set(LEVELS))}: give each a place in ROWS, above who imports it"
    entries = sorted(path.name for path in PACKAGE.iterdir() if path.name != "__pycache__")
    assert len(entries) <= 18, f"ilqljax has {len(entries)} entries, at most 18: put the new one in a room. {entries}"


def test_modules_import_only_from_lower_rows():
    wrong = [where for own, other, where in import_pairs() if not other or LEVELS[other] >= LEVELS[own]]
    advice = "A room imports from rows above its own in ROWS. Move what is shared down, or pass it in:"
    assert not wrong, "\n".join([advice, *wrong])


def test_the_library_imports_no_task_and_no_task_another():
    wrong = [where for own, other, where in import_pairs() if other in TASKS]
    advice = "Tasks are found through entry points and `register`; nothing imports one:"
    assert not wrong, "\n".join([advice, *wrong])


def test_imports_inside_the_package_make_no_cycle():
    graph = {name: {i for i, _ in imports_of(path) if i in SOURCES} - {name} for name, path in SOURCES.items()}
    while free := [name for name, imported in graph.items() if not imported]:
        graph = {name: imported - set(free) for name, imported in graph.items() if name not in free}
    assert not graph, f"these import each other: {sorted(graph)}"


def test_modules_are_imported_by_their_full_names():
    relative = [(path, i) for path in {*SOURCES.values(), *OUTSIDE} - set(CONFIGS) for i in imports_of(path)]
    assert not [(path, imported) for path, (imported, _) in relative if imported.startswith(".")]


def test_each_library_is_imported_behind_its_door():
    for library, doors in ONLY_IN.items():
        users = {
            path.relative_to(ROOT).as_posix()
            for path in [*SOURCES.values(), *OUTSIDE]
            if any(imported.partition(".")[0] == library for imported, _ in imports_of(path))
        }
        assert users, f"nothing imports {library} any more: drop the rule"
        outside = sorted(user for user in users if not user.startswith(doors))
        assert not outside, f"{outside} import {library}, which only {', '.join(doors)} may. Use what these offer."


def test_configs_import_only_the_config_module_and_each_other():
    for path in CONFIGS:
        roots = {imported for imported, _ in imports_of(path)}
        assert roots <= {".", "._algorithms", "ilqljax.config", "ml_collections"}, (path, roots)


def test_nothing_imports_scripts_tests_or_benchmarks():
    for path in [*SOURCES.values(), *OUTSIDE]:
        roots = {imported.partition(".")[0] for imported, _ in imports_of(path)}
        allowed = {"benchmarks"} if path in OUTSIDE and path not in CONFIGS else set()
        assert not roots & ({"scripts", "tests", "benchmarks"} - allowed), path


def find_names(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    aliases = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return attributes | aliases | {node.id for node in nodes if isinstance(node, ast.Name)}


ON_ONE_SYSTEM = {"fcntl", "grp", "msvcrt", "posix", "pwd", "resource", "termios", "tty", "winreg"}


def test_modules_that_not_every_system_has_are_imported_only_where_their_absence_is_handled():
    for name, path in SOURCES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        handled = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            names = {alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)}
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            assert id(node) in handled or not names & ON_ONE_SYSTEM, (name, names & ON_ONE_SYSTEM)


@pytest.mark.slow
def test_every_module_is_imported_on_a_system_without_fcntl_and_resource():
    names = sorted(name for name in SOURCES if not name.endswith("__main__"))
    code = (
        "import importlib, sys\nsys.modules['fcntl'] = sys.modules['resource'] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "from ilqljax.data.files import lock_path\nwith lock_path('.') as lock: print(lock)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("unsupported\n", 0), run.stderr


def test_one_switch_knows_the_platform_and_one_room_orders_what_a_compiler_does():
    asks = {"default_backend", "get_backend", "device_kind", "platform_version", "platform_dependent"}
    orders = {"optimization_barrier", "with_layout_constraint"}
    found = {name: find_names(path) for name, path in SOURCES.items()}
    assert {name for name, names in found.items() if names & asks} == {"ilqljax.models.cpu"}
    assert {name[:18] for name, names in found.items() if names & orders} == {"ilqljax.models.cpu"}


def test_the_public_names_are_those_that_type_checkers_see():
    (block,) = [node for node in ast.parse(SOURCES["ilqljax"].read_text()).body if is_for_type_checkers(node)]
    shown = {alias.asname or alias.name: (node.module, alias.name) for node in block.body for alias in node.names}
    homes = {}
    for module, names in ilqljax._HOMES.items():
        for own, _, public in (entry.partition("=") for entry in names.split()):
            homes[public or own] = (f"ilqljax.{module}", own)
    assert shown == homes
    assert sorted(ilqljax.__all__) == sorted(homes)
    for name in homes:
        assert getattr(ilqljax, name) is getattr(sys.modules[homes[name][0]], homes[name][1])


def test_importing_the_package_alone_loads_nothing_else():
    code = "import sys, ilqljax; print([name for name in sys.modules if name.startswith(('ilqljax.', 'numpy', 'jax'))])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def reach(name: str) -> set[str]:
    """Return everything that importing a module imports, the package's own modules followed."""
    seen, queue = set(), [name]
    while queue:
        for imported, _ in imports_of(SOURCES[queue.pop()], nested=False):
            parents = {imported.rsplit(".", n)[0] for n in range(imported.count(".") + 1)}
            new = (parents & set(SOURCES) or {imported}) - seen
            seen |= new
            queue += [i for i in new if i in SOURCES]
    return seen


def test_a_program_that_only_shows_its_help_waits_for_no_slow_library():
    for program in ("ilqljax.audit", "ilqljax.rewrite"):
        slow = {i for i in reach(program) if i.partition(".")[0] in ("matplotlib", "pandas", "sklearn")}
        assert not slow, (program, slow)


def test_numpy_level_code_does_not_import_jax():
    for name in SOURCES:
        if name.startswith(NUMPY_LEVEL) and not name.startswith(USES_JAX):
            heavy = {i for i in reach(name) if i.partition(".")[0] in ("jax", "flax", "optax", "orbax", "grain")}
            assert not heavy, (
                f"importing {name} imports {', '.join(sorted(heavy))}. NumPy-level are {', '.join(NUMPY_LEVEL)}: "
                "import what needs jax inside the function that uses it, or `if TYPE_CHECKING` where only annotations "
                "do. A module that computes on devices is listed in USES_JAX of this test instead, and no NumPy-level "
                "module may then import it at its top."
            )


def test_every_exception_from_the_rule_needs_it():
    needless = [name for name in USES_JAX if not any("jax" in i.partition(".")[0] for i in reach(name))]
    assert not needless, f"{needless} import no jax any more: take them out of USES_JAX"
