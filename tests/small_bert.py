"""A small BERT with random weights in a directory, for tests of what reads one."""

import json

import numpy as np
from safetensors.numpy import save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "nurse", "care", "night", "python", "sql", "##s", "a", "the"]
SHAPES = {
    "two heads": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "one layer, one head, tanh, own epsilon": {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 40,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-3,
    },
    "three heads, relu": {
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 12,
        "hidden_act": "relu",
    },
}


def save_bert(folder, *, seed=0, **settings):
    """Write a small BERT with random weights as transformers would, biases and norms drawn too."""
    folder.mkdir(exist_ok=True)
    settings = {"vocab_size": len(WORDS), "max_position_embeddings": 12, **SHAPES["two heads"], **settings}
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    shapes = {"word": (len(WORDS), width), "position": (settings["max_position_embeddings"], width)}
    shapes = {f"embeddings.{k}_embeddings": v for k, v in {**shapes, "token_type": (2, width)}.items()}
    shapes["embeddings.LayerNorm"] = (width,)
    for i in range(settings["num_hidden_layers"]):
        names = {"output.LayerNorm": (width,), "attention.output.LayerNorm": (width,), "output.dense": (width, inner)}
        names |= {
            f"attention.{name}": (width, width) for name in ("self.query", "self.key", "self.value", "output.dense")
        }
        names["intermediate.dense"] = (inner, width)
        shapes |= {f"encoder.layer.{i}.{name}": shape for name, shape in names.items()}
    rng, weights = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.normal(float("LayerNorm" in name), 0.4, shape).astype(np.float32)
        if not name.endswith("_embeddings"):
            weights[f"{name}.bias"] = rng.normal(0.0, 0.3, shape[:1]).astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]} | settings))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
