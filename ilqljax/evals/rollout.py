"""Returns of a policy that acts in environments, all at once."""

from collections.abc import Sequence

import numpy as np

from ilqljax.envs.base import LanguageEnvironment, Policy, interact_environments


def evaluate_rollouts(environments: Sequence[LanguageEnvironment], policy: Policy) -> dict[str, float]:
    """Play every environment once and return the mean return, its standard error and the mean number of turns."""
    played = [sequence for _, sequence in interact_environments(environments, policy)]
    returns = np.array([sum(reward for _, _, reward, _ in sequence) for sequence in played])
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else float("nan")
    return {
        "return": float(returns.mean()),
        "return_standard_error": float(error),
        "turns": float(np.mean([len(sequence) for sequence in played])),
    }
