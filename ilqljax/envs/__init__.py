"""The classes a text task is made of."""

from ilqljax.envs.base import (
    LanguageEnvironment,
    LanguageObservation,
    Policy,
    Turn,
    interact_environment,
    interact_environments,
)

__all__ = [
    "LanguageEnvironment",
    "LanguageObservation",
    "Policy",
    "Turn",
    "interact_environment",
    "interact_environments",
]
