"""Configuration at the border: `ConfigDict`s in, checked frozen dataclasses and named objects out.

A config file holds `get_config(arg)`, which `parse_arg` helps to read, and states what differs from the defaults. The
program turns the sections of the config into dataclasses (`sections`) or into registered objects (`registry`), and
everything inside sees only those. An option is declared in one place, the dataclass or builder that uses it.
"""

from ilqljax.config.files import load_config_file, parse_arg, resolve_path
from ilqljax.config.registry import BuildContext, build, load_tasks, register
from ilqljax.config.sections import from_section, to_plain

__all__ = [
    "BuildContext",
    "build",
    "from_section",
    "load_config_file",
    "load_tasks",
    "parse_arg",
    "register",
    "resolve_path",
    "to_plain",
]
