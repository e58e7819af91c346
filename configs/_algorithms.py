"""What each algorithm needs other than its own defaults and a task's settings."""

# The first one is what a config trains without an argument.
POLICIES = ("bc", "filtered_bc", "decision_transformer", "dpo")
ALGORITHMS = ("ilql", "mc", "sarsa", "cql", "psi", "ilql_utterance", "chai", *POLICIES)
RERANK = {"n_generations": 8, "rank_by": "advantage"}
DECODING = {"ilql_utterance": RERANK, "chai": RERANK}


def make_losses(*, expectile: float, beta: float, prefix: str, min_gap: float, **critic: float) -> dict[str, dict]:
    """Make what the options of every algorithm's loss are for a task, where they are not the defaults.

    Args:
        expectile: of ILQL.
        beta: of psi-learning; that of decoding.
        prefix: of the decision transformer's labels, in characters that the task's tokenizer has.
        min_gap: least difference of returns in a preference pair.
        critic: options of the task's critics.
    """
    utterance = critic | {"cql_weight": 0.0, "td_lambda": 0.0}
    return {
        **dict.fromkeys(("mc", "sarsa", "cql"), critic),
        "ilql": critic | {"expectile": expectile},
        "psi": critic | {"beta": beta},
        "ilql_utterance": utterance | {"expectile": expectile},
        "chai": utterance | {"expectile": 0.9},
        "bc": {},
        "filtered_bc": {},
        "decision_transformer": {"prefix": prefix},
        "dpo": {"min_gap": min_gap},
    }
