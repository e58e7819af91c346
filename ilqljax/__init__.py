"""Offline RL for language models in JAX, and AutoRefine: postings rewritten for a more diverse shortlist, audited.

What a notebook needs is here by name and imported when it is first used; `import ilqljax` alone loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `_HOMES` says, for editors and type checkers
    from ilqljax.config import register
    from ilqljax.data.dataset import ObservationDataset
    from ilqljax.data.step_rewards import StepRewards
    from ilqljax.data.tokenizer import CharacterTokenizer, load_tokenizer, train_bpe
    from ilqljax.decoding.generate import DecodeConfig
    from ilqljax.decoding.policy import TextPolicy
    from ilqljax.envs.base import LanguageEnvironment, LanguageObservation, ListDialogue, Policy, interact_environments
    from ilqljax.errors import UserError
    from ilqljax.hiring.audit.frame import FrameAudit, audit_frame
    from ilqljax.models.builders import load_model
    from ilqljax.models.gpt2 import GPT2, GPT2Config
    from ilqljax.models.llama import Llama, LlamaConfig
    from ilqljax.models.value_lm import ValueLM, ValueLMConfig
    from ilqljax.rl.steps import TargetConfig
    from ilqljax.train import train as train_run
    from ilqljax.training.evaluation import evaluate_run, make_policy, open_run
    from ilqljax.training.fit import Fitted, fit, load_fitted
    from ilqljax.training.plan import plan_run
    from ilqljax.training.run_config import TrainConfig, load_run_config

__all__ = [
    "GPT2", "CharacterTokenizer", "DecodeConfig", "Fitted", "FrameAudit", "GPT2Config", "LanguageEnvironment",
    "LanguageObservation", "ListDialogue", "Llama", "LlamaConfig", "ObservationDataset", "Policy", "StepRewards",
    "TargetConfig", "TextPolicy", "TrainConfig", "UserError", "ValueLM", "ValueLMConfig", "audit_frame", "evaluate_run",
    "fit", "interact_environments", "load_fitted", "load_model", "load_run_config", "load_tokenizer",
    "make_policy", "open_run", "plan_run", "register", "train_bpe", "train_run",
]  # fmt: skip
_HOMES = {
    # A task: what is observed, who answers, who acts, and its rows.
    "envs.base": "LanguageEnvironment LanguageObservation ListDialogue Policy interact_environments",
    "data.dataset": "ObservationDataset",
    "data.step_rewards": "StepRewards",
    "data.tokenizer": "CharacterTokenizer load_tokenizer train_bpe",
    # A model, trained in memory, and acting.
    "training.fit": "Fitted fit load_fitted",
    "models.builders": "load_model",
    "models.gpt2": "GPT2 GPT2Config",
    "models.llama": "Llama LlamaConfig",
    "models.value_lm": "ValueLM ValueLMConfig",
    "rl.steps": "TargetConfig",
    "training.run_config": "TrainConfig load_run_config",
    "decoding.generate": "DecodeConfig",
    "decoding.policy": "TextPolicy",
    # Runs of the train program. `ilqljax.train` is its module, so that its function has another name here.
    "train": "train=train_run",
    "training.evaluation": "evaluate_run make_policy open_run",
    "training.plan": "plan_run",
    "config": "register",
    "errors": "UserError",
    # An audit of a table.
    "hiring.audit.frame": "FrameAudit audit_frame",
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        for own, _, public in (entry.partition("=") for entry in names.split()):
            if name == (public or own):
                return getattr(importlib.import_module(f"ilqljax.{module}"), own)
    raise AttributeError(f"module 'ilqljax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
