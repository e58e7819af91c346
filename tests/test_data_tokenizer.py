"""Ids, round trips, control tokens that text cannot forge, and files."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from ilqljax.data.tokenizer import (
    CHARACTER_ORDER,
    FILE_NAME,
    GPT2_ORDER,
    CharacterTokenizer,
    GPT2Tokenizer,
    load_tokenizer,
    train_bpe,
)
from ilqljax.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "datapoints.json").read_text())
TEXTS = [
    "We hire people.",
    "Join our team, all people are welcome.",
    "people people people",
    "Café 你好 \U0001f600\n\tx  y",
]
FORGED = "a</a>b<|pad|>c</s><s><a></eod>d<|endoftext|>"


@pytest.fixture(scope="module")
def gpt2(shared_dir):
    return GPT2Tokenizer.from_directory(shared_dir / "gpt2_tokenizer")


@pytest.fixture(scope="module", params=["character", "bpe", "gpt2"])
def tokenizer(request):
    if request.param == "gpt2":
        return request.getfixturevalue("gpt2")
    return CharacterTokenizer(GOLDEN["charset"]) if request.param == "character" else train_bpe(TEXTS, vocab_size=300)


def list_special_ids(tokenizer):
    return {getattr(tokenizer, f"{name}_id") for name in ("pad", "bos", "eos", "boa", "eoa", "eod")}


def test_character_ids_are_those_of_the_golden_numbers():
    tokenizer = CharacterTokenizer(GOLDEN["charset"])
    names = ("pad", "eos", "eoa", "bos", "boa", "eod")
    assert [getattr(tokenizer, f"{name}_id") for name in names] == [61, 62, 63, 64, 65, 66]
    assert GOLDEN["special"] == list(CHARACTER_ORDER)
    assert tokenizer.encode("ab:é") == [0, 1, 59, GOLDEN["unk_id"]]
    assert tokenizer.vocab_size == 67


def test_an_unknown_character_decodes_to_a_visible_mark():
    tokenizer = CharacterTokenizer("ab")
    assert tokenizer.decode(tokenizer.encode("abé")) == "ab\N{REPLACEMENT CHARACTER}"


def test_without_an_unknown_id_an_unknown_character_is_refused():
    tokenizer = CharacterTokenizer("ab", unk=False)
    assert tokenizer.vocab_size == 8
    with pytest.raises(UserError, match=r"\['é'\] are not in charset"):
        tokenizer.encode("abé")


def test_a_repeated_character_is_refused():
    with pytest.raises(UserError, match=r"repeats \['a'\]"):
        CharacterTokenizer("aba")


def test_special_tokens_must_be_the_six():
    with pytest.raises(UserError, match="list each of"):
        CharacterTokenizer("ab", special_tokens=GPT2_ORDER[1:])


def test_control_tokens_have_the_last_six_ids(tokenizer):
    assert list_special_ids(tokenizer) == set(range(tokenizer.vocab_size - 6, tokenizer.vocab_size))


def test_text_cannot_forge_a_control_token(tokenizer):
    assert not list_special_ids(tokenizer) & set(tokenizer.encode(FORGED))


def test_control_tokens_are_dropped(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), tokenizer.eos_id, *tokenizer.encode("yes"), tokenizer.pad_id]
    assert tokenizer.decode(ids) == "hiyes"


def test_an_id_outside_the_vocabulary_is_refused(tokenizer):
    for outside in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token id {outside} is not in the vocabulary"):
            tokenizer.decode([outside])


def test_saving_and_loading_gives_an_equal_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, f"{FILE_NAME}.sha256"]
    for source in (tmp_path, tmp_path / FILE_NAME):
        loaded = load_tokenizer(source)
        assert type(loaded) is type(tokenizer)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode("We hire. </a>") == tokenizer.encode("We hire. </a>")


@pytest.mark.parametrize("tokenizer", ["bpe", "gpt2"], indirect=True)
def test_byte_level_tokenizers_round_trip_any_text(tokenizer):
    for text in [*TEXTS, FORGED, "", " lead and trail ", "\x00\r\n"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_gpt2_ids_and_the_order_of_its_control_tokens(gpt2):
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.vocab_size == 50263
    ids = (gpt2.pad_id, gpt2.bos_id, gpt2.eos_id, gpt2.boa_id, gpt2.eoa_id, gpt2.eod_id)
    assert ids == tuple(range(50257, 50263))


def test_bpe_orders_its_control_tokens_as_gpt2_does():
    tokenizer = train_bpe(TEXTS, vocab_size=300)
    ids = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.boa_id, tokenizer.eoa_id, tokenizer.eod_id]
    assert ids == list(range(tokenizer.n_text, tokenizer.vocab_size))


def test_gpt2_encodes_real_postings_as_transformers_does(gpt2, shared_dir):
    from transformers import GPT2Tokenizer as TransformersTokenizer

    theirs = TransformersTokenizer.from_pretrained(str(shared_dir / "gpt2_tokenizer"))
    with gzip.open(shared_dir / "data" / "hn_who_is_hiring.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(100), strict=False)]
    for text in texts:
        assert gpt2.encode(text) == theirs.backend_tokenizer.encode(text).ids


def test_equal_texts_train_an_equal_bpe_in_another_process():
    program = (
        "import json, sys; from ilqljax.data.tokenizer import train_bpe;"
        "print(train_bpe(json.loads(sys.argv[1]), vocab_size=300).fingerprint)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert run.stdout.strip() == train_bpe(TEXTS, vocab_size=300).fingerprint


def test_bpe_merges_what_is_frequent():
    tokenizer = train_bpe(["people " * 50], vocab_size=280)
    assert len(tokenizer.encode("people")) < len("people")
    assert tokenizer.vocab_size <= 280


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(UserError, match=r"vocab_size=261 is too small.*at least 262"):
        train_bpe(TEXTS, vocab_size=261)


def test_other_texts_or_another_order_change_the_fingerprint():
    base = CharacterTokenizer("abc")
    assert base.fingerprint == CharacterTokenizer("abc").fingerprint
    others = (CharacterTokenizer("acb"), CharacterTokenizer("abc", special_tokens=GPT2_ORDER))
    assert base.fingerprint not in {other.fingerprint for other in others}
    assert train_bpe(TEXTS, vocab_size=300).fingerprint != train_bpe(TEXTS[:1] * 9, vocab_size=300).fingerprint


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not hold a GPT-2 tokenizer"):
        load_tokenizer(tmp_path)


def test_a_missing_path_is_refused_without_asking_the_hub(tmp_path):
    for missing in (tmp_path / "nothing", "./nothing", "runs/a/b/nothing"):
        with pytest.raises(UserError, match="does not exist"):
            load_tokenizer(missing)


def test_a_flipped_bit_of_a_saved_tokenizer_is_noticed(tmp_path):
    train_bpe(["We hire a nurse. We care for her."], vocab_size=275).save(tmp_path)
    file = tmp_path / FILE_NAME
    sound = file.read_bytes()
    at = sound.index(b'"We"') + 1
    file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
    with pytest.raises(UserError, match=f"{FILE_NAME}: is damaged or was changed since it was written"):
        load_tokenizer(tmp_path)
    file.with_name(f"{FILE_NAME}.sha256").unlink()  # changed on purpose, or of an older run
    file.write_bytes(sound)
    assert load_tokenizer(tmp_path).encode("We")


def test_a_broken_file_is_named_with_its_line(tmp_path):
    file = tmp_path / FILE_NAME
    file.write_text('{\n"kind": oops}')
    with pytest.raises(UserError, match=f"{FILE_NAME}:2: not JSON"):
        load_tokenizer(tmp_path)
    file.write_text('{"kind": "wordpiece"}')
    with pytest.raises(UserError, match=r"kind 'wordpiece': expected one of .*'gpt2', 'pretrained'\]"):
        load_tokenizer(tmp_path)
    file.write_text('{"kind": "character", "chars": "ab"}')
    with pytest.raises(UserError, match=r"has the fields \['chars'\]"):
        load_tokenizer(tmp_path)


def test_importing_the_module_does_not_import_transformers():
    program = "import sys, ilqljax.data.tokenizer; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])


def test_a_gpt2_tokenizer_with_added_tokens_is_refused(gpt2, tmp_path):
    backend = tokenizers.Tokenizer(models.BPE(vocab={p: n for n, p in enumerate(gpt2.vocab)}, merges=list(gpt2.merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|pad|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"adds the tokens \['<\|pad\|>'\]"):
        GPT2Tokenizer.from_directory(tmp_path)


def test_a_name_that_cannot_be_fetched_is_refused_not_read_as_an_empty_tokenizer(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub comes with transformers")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="could be fetched from the hub"):
        GPT2Tokenizer.from_pretrained("no-such-owner/no-such-model")


def test_half_a_character_and_what_is_no_text_are_refused():
    with pytest.raises(UserError, match=r"'a\\ud800' holds half a character \('\\ud800'\) at position 1"):
        train_bpe(["fine", "a\ud800"], vocab_size=300)
    tokenizer = train_bpe(TEXTS, vocab_size=300)
    with pytest.raises(UserError, match="half a character"):
        tokenizer.encode("\udc80")
    with pytest.raises(UserError, match="expected a text, got 3"):
        tokenizer.encode(3)
    assert tokenizer.decode(tokenizer.encode("a\0b\U0001f600")) == "a\0b\U0001f600"


def test_arguments_of_another_type_are_refused():
    with pytest.raises(UserError, match="path_or_name=5 is of type int"):
        load_tokenizer(5)
    with pytest.raises(UserError, match="texts=3 is of type int"):
        train_bpe(3, vocab_size=300)
    with pytest.raises(UserError, match="texts is one text"):
        train_bpe("abc", vocab_size=300)
    with pytest.raises(UserError, match=r"vocab_size=300\.5 is not a whole number"):
        train_bpe(["abc"], vocab_size=300.5)
