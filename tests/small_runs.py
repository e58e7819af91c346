"""Configs of training runs on a market small enough for seconds."""

from ml_collections import ConfigDict

from ilqljax.training.run_config import load_run_config

STEPS = 6


def make_config(tmp_path, name: str, arg: str = "") -> ConfigDict:
    config = load_run_config(f"configs/workable.py:{arg}")
    config.run_dir = str(tmp_path / name)
    config.data.update(
        {
            "folder": str(tmp_path / "data"),
            "n_postings": 40,
            "n_candidates": 200,
            "n_practice": 4,
            "fractions": (0.5, 0.2, 0.3),
        }
    )
    config.tokenizer.vocab_size = 600
    config.model.update({"n_embd": 16, "n_head": 2, "n_layer": 1, "unroll": 1, "n_positions": 384})
    for section in (config.pretrain, config.train):
        section.update({"eval_every": 3, "save_every": 2, "log_every": 1, "n_rollouts": 2, "warmup_steps": 2})
        section.update({"length_buckets": (320,), "action_buckets": (128,), "select": "last"})
        section.total_steps = STEPS if section.total_steps else 0
    config.decode.max_new_tokens = 24
    config.acting.length_buckets = (224,)
    config.evaluator.update({"best_of": 2, "max_postings": 4})
    config.mesh.data = 1
    return config
