"""Offline RL for language models in JAX, and AutoRefine: postings rewritten for a more diverse shortlist, audited.

What a notebook needs is here by name and imported when it is first used; `import ilqljax` alone loads nothing.
"""

import importlib
from typing import Any

_PUBLIC = {
    # A task: what is observed, who answers, who acts, and its rows.
    "LanguageEnvironment": "envs.base",
    "LanguageObservation": "envs.base",
    "Policy": "envs.base",
    "interact_environments": "envs.base",
    "ObservationDataset": "data.dataset",
    "CharacterTokenizer": "data.tokenizer",
    "load_tokenizer": "data.tokenizer",
    "train_bpe": "data.tokenizer",
    # A model, trained in memory, and acting.
    "GPT2": "models.gpt2",
    "GPT2Config": "models.gpt2",
    "ValueLM": "models.value_lm",
    "ValueLMConfig": "models.value_lm",
    "TargetConfig": "rl.steps",
    "TrainConfig": "training.run_config",
    "Fitted": "training.fit",
    "fit": "training.fit",
    "DecodeConfig": "decoding.generate",
    "TextPolicy": "decoding.policy",
    # Runs of the train program (`ilqljax.train.train`).
    "UserError": "errors",
    "register": "config",
    "load_run_config": "training.run_config",
    "plan_run": "training.plan",
    "open_run": "training.evaluation",
    "evaluate_run": "training.evaluation",
    "make_policy": "training.evaluation",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ilqljax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ilqljax.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
