"""What each algorithm needs other than a task's own settings: the options of its loss, and how it acts."""

CLONE = {"transition_weight": 0.0}
CRITIC = {
    "v_weight": 1.0,
    "q_weight": 1.0,
    "cql_weight": 0.25,
    "dm_weight": 0.0,
    "awac_weight": 0.0,
    "discount": 0.99,
    "td_lambda": 0.0,
    "turn_lambda": 1.0,
    "value_min": float("-inf"),
    "value_max": float("inf"),
    "cql_temperature": 1.0,
    "dm_margin": 0.0,
    "beta": 0.0,
    "exp_weights": True,
    "clip_weight": 0.0,
    "transition_weight": 0.0,
    "detach_v": False,
    "detach_q": False,
    "detach_policy": False,
}
RERANK = {"n_generations": 8, "rank_by": "advantage"}
DECODING = {"ilql_utterance": RERANK, "chai": RERANK}
# The first one is what a config trains without an argument.
ALGORITHMS = (
    "ilql", "mc", "sarsa", "cql", "psi", "ilql_utterance", "chai", "bc", "filtered_bc", "decision_transformer", "dpo"
)  # fmt: skip


def make_losses(*, expectile: float, beta: float, prefix: str, min_gap: float, **critic: float) -> dict[str, dict]:
    """Make the options of every algorithm's loss for a task.

    Args:
        expectile: of ILQL.
        beta: of psi-learning; that of decoding.
        prefix: of the decision transformer's labels, in characters that the task's tokenizer has.
        min_gap: least difference of returns in a preference pair.
        critic: what the task's critics have other than `CRITIC`.
    """
    token = CRITIC | critic
    utterance = token | {"cql_weight": 0.0, "td_lambda": 0.0}
    return {
        "ilql": token | {"expectile": expectile, "mc_returns": False, "backup": "v"},
        "mc": token,
        "sarsa": token,
        "cql": token,
        "psi": token | {"beta": beta},
        "ilql_utterance": utterance | {"expectile": expectile},
        "chai": utterance | {"expectile": 0.9},
        "bc": CLONE,
        "filtered_bc": CLONE | {"top_fraction": 0.25, "min_return": float("-inf")},
        "decision_transformer": CLONE | {"n_labels": 8, "target_quantile": 1.0, "prefix": prefix},
        "dpo": {"beta": 0.1, "min_gap": min_gap, "pairs_per_prompt": 0, "seed": 0},
    }
