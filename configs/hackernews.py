"""Rewrite real "Ask HN: Who is hiring?" posts, matched against the built-in sample's candidates.

    python -m ilqljax.train --config configs/hackernews.py --config.data.path=PATH/hn_who_is_hiring.jsonl.gz

The posts are a JSON Lines file (id, month, text, locations, remote) or a prepared Hugging Face dataset. Posts longer
than `config.data.max_words` are left out of the scored data and counted; their first sentences are reading practice
(not with `:gpt2` or `:smollm2`, which have read enough). 200 held-out posts are judged, with `:smollm2` 60, and with
`:gpt2` all of them. Algorithms and sizes (`:bc`, `:dpo`, `:smollm2`, `:gpt2`) as in configs/workable.py.
"""

from ml_collections import ConfigDict

from . import workable


def get_config(arg: str = "") -> ConfigDict:
    """Make the config: the hiring task's, with sizes for longer texts and a larger vocabulary."""
    config = workable.get_config(arg)
    config.task = "hackernews"
    config.data.folder = "data/hackernews"
    config.data.source = "hackernews"
    config.data.max_words = 80
    if config.tokenizer.name == "gpt2":
        return config
    for name in ("pretrain_dataset", "dataset", "validation_dataset"):
        config[name].update({"max_length": 512, "max_actions": 256})
    for stage in (config.pretrain, config.train):
        stage.length_buckets = (320, 512)
        stage.action_buckets = (128, 256)
    config.decode.max_new_tokens = 192
    config.acting.length_buckets = (160, 224, 320)
    if config.tokenizer.name == "pretrained":
        return config
    config.data.n_practice = 3000
    config.tokenizer.vocab_size = 4000
    config.model.update({"n_positions": 640, "n_embd": 96})
    config.pretrain.total_steps = 1500 if config.pretrain.total_steps else 0
    config.train.total_steps = 1500 if config.algorithm == "bc" else 400
    config.evaluator.max_postings = 200
    return config
