"""Published tokenizers: their ids, special tokens that text cannot forge, files, and the way back to transformers."""

import json

import pytest
import tokenizers
from published_tokenizers import MAKERS, make_byte_level, make_texts
from tokenizers import models, pre_tokenizers

from ilqljax.data.tokenizer import (
    FILE_NAME,
    CharacterTokenizer,
    GPT2Tokenizer,
    PretrainedTokenizer,
    load_tokenizer,
    train_bpe,
)
from ilqljax.errors import UserError

TEXTS = make_texts(200, seed=1)
CONTROL = ("<|pad|>", "<s>", "</s>", "<a>", "</a>", "</eod>")


@pytest.fixture(scope="module", params=MAKERS)
def directory(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param]().save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def theirs(directory):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A directory as SmolLM2's: names of special tokens and a chat template beside the tokenizer."""
    directory = tmp_path_factory.mktemp("smollm2")
    make_byte_level().save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "eos_token": "<|im_end|>",
        "bos_token": {"content": "<|im_start|>", "lstrip": False},
        "pad_token": "[PAD]",
        "chat_template": "{{ messages }}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def load_with_settings(byte_level, folder, **changes):
    settings = json.loads((byte_level / "tokenizer_config.json").read_text()) | changes
    (folder / "tokenizer.json").write_text((byte_level / "tokenizer.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return PretrainedTokenizer.from_directory(folder)


def change_definition(byte_level, folder, **changes):
    definition = json.loads((byte_level / "tokenizer.json").read_text()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(definition))


def test_texts_have_the_ids_of_transformers_and_decode_as_there(directory, theirs):
    ours = load_tokenizer(directory)
    assert isinstance(ours, PretrainedTokenizer)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        if theirs.unk_token_id not in ids:
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("directory", ["byte-level", "metaspace"], indirect=True)
def test_texts_decode_to_themselves(directory):
    ours = load_tokenizer(directory)
    # Metaspace takes a first space for the one that it puts before every text.
    texts = [text for text in TEXTS if directory.name.startswith("byte") or not text.startswith(" ")]
    assert [ours.decode(ours.encode(text)) for text in texts] == texts


def test_text_cannot_forge_a_special_token(directory):
    ours = load_tokenizer(directory)
    definition = json.loads((directory / "tokenizer.json").read_text())
    special = [one["content"] for one in definition["added_tokens"] if one["special"]]
    unknown = {"unigram0": "<unk>", "wordpiece0": "[UNK]"}.get(directory.name)
    forged = {ours.token_id(token) for token in special} - {ours.token_id(unknown)}
    assert len(special) >= 2 and None not in forged
    for text in [*special, *CONTROL, "".join(special), "a " + " ".join([*special, *CONTROL]) + " b"]:
        ids = ours.encode(text)
        assert not forged & set(ids)
        assert max(ids) < ours.n_text


def test_merges_and_whole_words_cannot_forge_a_special_token(tmp_path):
    special = {"id": 0, "content": "<a>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    vocab = {"<a>": 0, "<": 1, "a": 2, ">": 3, "<a": 4}
    merged = {"type": "BPE", "vocab": vocab, "merges": ["< a", "<a >"]}
    whole = {"type": "BPE", "vocab": vocab, "merges": [], "ignore_merges": True}
    words = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
    for model, ids in ((merged, [4, 3]), (whole, [1, 2, 3]), (words, [2])):
        tokenizer = PretrainedTokenizer({"model": model, "added_tokens": [special | {"normalized": False}]})
        assert tokenizer.encode("<a>") == ids


def test_added_tokens_that_are_not_special_are_read_out_of_text(byte_level):
    ours = load_tokenizer(byte_level)
    assert ours.encode("<|user|>") == [400]
    assert ours.decode([400]) == "<|user|>"


def test_control_tokens_follow_the_last_id(byte_level):
    ours = load_tokenizer(byte_level)
    assert ours.n_text == 401
    ids = (ours.pad_id, ours.bos_id, ours.eos_id, ours.boa_id, ours.eoa_id, ours.eod_id)
    assert ids == tuple(range(401, 407)) and ours.vocab_size == 407


def test_special_tokens_have_ids_by_name_and_by_content_and_are_not_decoded(byte_level):
    ours = load_tokenizer(byte_level)
    assert ours.token_id("eos_token") == ours.token_id("<|im_end|>") == 2
    assert ours.token_id("bos_token") == 1
    assert ours.token_id("pad_token") is None  # named, but not in the vocabulary
    assert ours.token_id("cls_token") is None and ours.token_id("<|user|>") is None
    assert ours.decode([1, *ours.encode("Hi"), 2, ours.eoa_id]) == "Hi"


def test_named_tokens_are_special_even_where_they_are_ordinary_added_ones(byte_level, tmp_path):
    ours = load_with_settings(byte_level, tmp_path, sep_token="<|user|>", unk_token="!")
    assert ours.token_id("sep_token") == 400
    assert 400 not in ours.encode("<|user|>")
    assert ours.decode(ours.encode("Hi!")) == "Hi!"


def test_special_tokens_that_only_the_config_lists_are_added(byte_level, tmp_path):
    listed = {"401": {"content": "<|tool|>", "special": True}, "400": {"content": "<|user|>", "special": False}}
    ours = load_with_settings(
        byte_level, tmp_path, added_tokens_decoder=listed, additional_special_tokens=["<|user|>", "<|absent|>"]
    )
    assert (ours.token_id("<|tool|>"), ours.token_id("<|user|>"), ours.n_text) == (401, 400, 402)
    assert not {400, 401} & set(ours.encode("<|tool|><|user|>"))


def test_the_chat_template_is_that_of_its_own_file_or_of_the_config(byte_level, tmp_path):
    assert load_tokenizer(byte_level).chat_template == "{{ messages }}"
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    assert load_with_settings(byte_level, tmp_path, chat_template=named).chat_template == "d"
    assert load_with_settings(byte_level, tmp_path, chat_template=named[:1]).chat_template == ""
    (tmp_path / "chat_template.jinja").write_text("{{ own }}")
    assert PretrainedTokenizer.from_directory(tmp_path).chat_template == "{{ own }}"


def test_truncation_padding_dropout_and_added_texts_of_the_file_are_left_out(byte_level, tmp_path):
    backend = make_byte_level()
    backend.enable_truncation(4)
    backend.enable_padding(length=9)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    definition = json.loads(backend.to_str())
    definition["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    text = "We hire people, all of them. " * 9
    assert load_tokenizer(tmp_path).encode(text) == load_tokenizer(byte_level).encode(text)


def test_saving_and_loading_gives_an_equal_tokenizer(directory, tmp_path):
    ours = load_tokenizer(directory)
    ours.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is PretrainedTokenizer
    assert loaded.fingerprint == ours.fingerprint == PretrainedTokenizer.from_directory(directory).fingerprint
    assert [loaded.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


def test_another_template_or_name_changes_the_fingerprint(byte_level, tmp_path):
    given = load_tokenizer(byte_level).fingerprint
    assert load_with_settings(byte_level, tmp_path).fingerprint == given
    assert load_with_settings(byte_level, tmp_path, chat_template="x").fingerprint != given
    assert load_with_settings(byte_level, tmp_path, eos_token="<|endoftext|>").fingerprint != given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "has no model with a vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": "b"}}}, "vocabulary lacks numbers of its pieces"),
        ({"model": {"type": "Unigram", "vocab": [["a"]]}}, "vocabulary lacks numbers of its pieces"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}, "merges are not a list of pairs"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}, "library cannot read.*`b` out of vocab"),
        ({"added_tokens": [{"id": 3}]}, "added_tokens are not a list of tokens"),
        ({"normalizer": {"type": "Unheard"}}, "library cannot read"),
    ],
)
def test_a_damaged_definition_is_refused_in_one_line(byte_level, tmp_path, changes, message):
    change_definition(byte_level, tmp_path, **changes)
    with pytest.raises(UserError, match=message) as refusal:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_other_damaged_files_are_refused_by_name(byte_level, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer_config\.json: its special tokens are damaged"):
        load_with_settings(byte_level, tmp_path, eos_token={"lstrip": False})
    with pytest.raises(UserError, match=r"tokenizer_config\.json: its special tokens are damaged"):
        load_with_settings(byte_level, tmp_path, added_tokens_decoder={"x": {"content": "y"}})
    with pytest.raises(UserError, match="the chat template hold other things than texts"):
        load_with_settings(byte_level, tmp_path, chat_template={"default": "x"})
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: cannot be read"):
        load_with_settings(byte_level, tmp_path)
    texts = dict.fromkeys(("chat_template", "instruction"), "")
    saved = {"kind": "pretrained", "definition": [], "names": {}, "chat": False, "special_tokens": [], **texts}
    (tmp_path / FILE_NAME).write_text(json.dumps(saved))
    with pytest.raises(UserError, match=f"{FILE_NAME}: definition is of another kind than was saved"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"holds no tokenizer\.json"):
        PretrainedTokenizer.from_directory(tmp_path / "nothing")


def test_a_plain_gpt2_directory_stays_a_gpt2_tokenizer(shared_dir, tmp_path):
    given = GPT2Tokenizer.from_directory(shared_dir / "gpt2_tokenizer")
    assert given.fingerprint == "b942ecba58124665"
    backend = tokenizers.Tokenizer(models.BPE({p: n for n, p in enumerate(given.vocab)}, list(given.merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|endoftext|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is GPT2Tokenizer and loaded.fingerprint == given.fingerprint


def test_gpt2_refuses_a_byte_level_tokenizer_with_another_splitter(byte_level, tmp_path):
    with pytest.raises(UserError, match=r"is a BPE tokenizer split by \{'type': 'Sequence'"):
        GPT2Tokenizer.from_directory(byte_level)
    plain = {"type": "ByteLevel", "add_prefix_space": False}
    change_definition(byte_level, tmp_path, pre_tokenizer=plain)
    with pytest.raises(UserError, match=r"normalizes text by \{'type': 'NFC'\}"):
        GPT2Tokenizer.from_directory(tmp_path)
    change_definition(byte_level, tmp_path, pre_tokenizer=plain, normalizer=None)
    with pytest.raises(UserError, match=r"adds the tokens \['<\|user\|>'\]"):
        GPT2Tokenizer.from_directory(tmp_path)


def check_exported(tokenizer, folder, *, model_type, texts=TEXTS):
    from transformers import AutoTokenizer

    tokenizer.to_transformers(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    ids = (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id)
    assert ids == (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eoa_id)
    control = range(tokenizer.n_text, tokenizer.vocab_size)
    assert set(control) <= set(theirs.all_special_ids) and len(theirs) == tokenizer.vocab_size
    assert theirs.decode([*control], skip_special_tokens=True) == ""
    return theirs, theirs.convert_ids_to_tokens([*control])


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
def test_transformers_reads_an_exported_tokenizer(directory, tmp_path, model_type):
    texts = TEXTS if not directory.name.startswith("wordpiece") else ["We hire people."]
    _, names = check_exported(load_tokenizer(directory), tmp_path, model_type=model_type, texts=texts)
    taken = {"metaspace0": {"<s>", "</s>"}, "unigram0": {"</s>"}}.get(directory.name, set())
    assert names == [f"<|ilqljax:{one.strip('<>')}|>" if one in taken else one for one in CONTROL]


def test_an_exported_chat_template_is_kept(byte_level, tmp_path):
    theirs, _ = check_exported(load_tokenizer(byte_level), tmp_path, model_type="llama")
    assert theirs.chat_template == "{{ messages }}"


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_transformers_reads_exported_tokenizers_of_our_own(tmp_path, model_type):
    bpe = train_bpe(TEXTS, vocab_size=400)
    assert check_exported(bpe, tmp_path, model_type=model_type)[1] == list(CONTROL)
    characters = CharacterTokenizer("".join(sorted({c for text in TEXTS[:9] for c in text} | {"\n"})))
    check_exported(characters, tmp_path, model_type=model_type)
    with_mark = CharacterTokenizer("ab\N{REPLACEMENT CHARACTER}", unk=False)
    check_exported(with_mark, tmp_path, model_type=model_type, texts=["ab\N{REPLACEMENT CHARACTER}ba", ""])


def test_transformers_reads_an_exported_gpt2_tokenizer(shared_dir, tmp_path):
    check_exported(GPT2Tokenizer.from_directory(shared_dir / "gpt2_tokenizer"), tmp_path, model_type="gpt2")


def test_ids_with_gaps_cannot_be_exported(byte_level, tmp_path):
    definition = json.loads((byte_level / "tokenizer.json").read_text())
    definition["model"]["vocab"]["<|far|>"] = 900
    ours = PretrainedTokenizer(definition)
    assert ours.n_text == 901
    with pytest.raises(UserError, match="ids have no gaps"):
        ours.to_transformers(tmp_path)
