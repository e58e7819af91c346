"""A plain PyTorch twin of the original's token-level ILQL and BC, written from its description alone.

It follows ../shared/DOMAIN.md section 1 and ../shared/golden/README.md, shares no code with `ilqljax`, and writes
folders in the format of ../shared/golden for options that those numbers do not show:

    python -m tests.twin.original DIR SEED [SEED ...]

tests/test_twin.py first shows that it reproduces the original's own numbers.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

CHARSET = "abcdefghijklmnopqrstuvwxyz .,!?"
SPECIAL = ["<|pad|>", "</s>", "</a>", "<s>", "<a>", "</eod>"]
UNK = len(CHARSET)
PAD, EOS, EOA, BOS, BOA, EOD = range(UNK + 1, UNK + 7)
VOCAB = UNK + 7
OPTIMIZER = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "steps": 3}


class AdvancedHead(nn.Module):
    """output(LN2(x + ff2(gelu(ff1(LN1(x)))))), with the exact GELU."""

    def __init__(self, width, n_outputs):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ff1, self.ff2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.output_layer = nn.Linear(width, n_outputs)

    def forward(self, x):
        return self.output_layer(self.ln2(x + self.ff2(nn.functional.gelu(self.ff1(self.ln1(x))))))


def make_head(width, n_outputs, advanced):
    if advanced:
        return AdvancedHead(width, n_outputs)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, n_outputs))


def make_trunk(sizes, vocab):
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes)
    ).eval()


class ILQL(nn.Module):
    """Networks under the original's names, from a case's `model` and `gpt2` options."""

    def __init__(self, options, sizes, vocab):
        super().__init__()
        self.options, width = options, sizes["n_embd"]
        self.model = make_trunk(sizes, vocab)
        if options["seperate_target"]:
            self.lm_target = make_trunk(sizes, vocab)
        if options["seperate_policy"]:
            self.lm_policy = make_trunk(sizes, vocab)
        self.v = make_head(width, 1, options["advanced_mlp"])
        for name in self.q_names:
            setattr(self, name, make_head(width, vocab, options["advanced_mlp"]))
            setattr(self, f"target_{name}", make_head(width, vocab, options["advanced_mlp"]))

    @property
    def q_names(self):
        return ("q", "q2") if self.options["double_q"] else ("q",)

    def read(self, trunk, tokens, mask):
        """What value heads read, and what the language model's own head reads."""
        caught = []
        hook = trunk.transformer.ln_f.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
        normed = trunk.transformer(tokens, attention_mask=mask).last_hidden_state
        hook.remove()
        return (caught[0] if self.options["advanced_mlp"] else normed), normed

    def forward(self, batch):
        o, tokens, mask = self.options, batch["tokens"], batch["attn_mask"]
        values, normed = self.read(self.model, tokens, mask)
        with torch.no_grad():
            slow = self.read(self.lm_target, tokens, mask)[0] if o["seperate_target"] else values.detach()
        if o["seperate_policy"]:
            logits = self.lm_policy.lm_head(self.read(self.lm_policy, tokens, mask)[1])
        else:
            logits = self.model.lm_head(normed.detach() if o["detach_pi"] else normed)
        states, actions = batch["state_idxs"], batch["action_idxs"]
        taken = torch.gather(tokens, 1, actions + 1)
        at = lambda x, idxs: torch.gather(x, 1, idxs[..., None].expand(-1, -1, x.shape[-1]))  # noqa: E731
        v = self.v(at(values.detach() if o["detach_v"] else values, states))[..., 0]
        q_input = at(values.detach() if o["detach_q"] else values, actions)
        qs = [getattr(self, name)(q_input) for name in self.q_names]
        with torch.no_grad():
            slow_qs = [getattr(self, f"target_{name}")(at(slow, actions)) for name in self.q_names]
            column = lambda q: torch.gather(q, 2, taken[..., None])[..., 0]  # noqa: E731
            target = torch.stack([column(q) for q in slow_qs]).min(0).values
            low, high = o["value_min"], o["value_max"]
            target = target.clamp(-np.inf if low is None else low, np.inf if high is None else high)
        return {
            "vs": v[:, :-1],
            "vns": v[:, 1:],
            "target_qs": target,
            "qs": qs,
            "taken_qs": [column(q) for q in qs],
            "taken": taken,
            "logits": logits,
        }


def policy_term(logits, weights, batch):
    """Weighted cross entropy, summed over tokens, over the number of all non-padding target tokens."""
    targets = batch["tokens"][:, 1:]
    nll = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
    mask = batch["attn_mask"][:, 1:]
    return (weights[:, :-1] * nll * mask).sum() / mask.sum()


def place(batch, at_actions, elsewhere):
    """Spread values of actions to token positions."""
    placed = torch.full(batch["tokens"].shape, float(elsewhere))
    for row, n in enumerate(batch["n_actions"]):
        placed[row, batch["action_idxs"][row, :n]] = at_actions[row, :n]
    return placed


def ilql_losses(model, batch, weights):
    """All loss terms, their total, and what the networks put out."""
    o, out = model.options, model(batch)
    valid = (torch.arange(batch["action_idxs"].shape[1])[None] < torch.tensor(batch["n_actions"])[:, None]).float()
    mean = lambda x: (x * valid).sum() / valid.sum()  # noqa: E731
    going = 1 - batch["terminals"][:, 1:].float()
    td_target = (batch["rewards"] + o["gamma"] * going * out["vns"]).detach()
    q_loss = mean(sum((td_target - q) ** 2 for q in out["taken_qs"]))
    v_target = out["target_qs"]
    if weights["mc_returns"]:
        v_target = torch.zeros_like(v_target)
        for row, n in enumerate(batch["n_actions"]):
            total = 0.0
            for t in reversed(range(n)):
                total = batch["rewards"][row, t] + o["gamma"] * total
                v_target[row, t] = total
    gap = v_target - out["vs"]
    v_loss = mean(torch.where(gap < 0, 1 - o["tau"], o["tau"]) * gap**2)
    temp, taken = o["cql_temp"], out["taken"][..., None]
    cql = mean(sum(torch.logsumexp(q / temp, -1) - q.gather(2, taken)[..., 0] / temp for q in out["qs"]))
    margins = [(q - q.gather(2, taken) + o["dm_margin"]).clamp(min=0) for q in out["qs"]]
    dm = mean(sum((m**2).sum(-1) for m in margins))
    advantage = (out["target_qs"] - out["vs"]).detach()
    w = torch.exp(o["beta"] * advantage) if o["exp_weights"] else torch.where(advantage > 0, o["beta"], 1 - o["beta"])
    token_weights = place(batch, w, o["transition_weight"])
    if o["clip_weight"] is not None:
        token_weights = token_weights.clamp(max=o["clip_weight"])
    idle = o["seperate_policy"] and not weights["awac_weight"]  # the original then feeds zero logits
    token = policy_term(out["logits"] * 0 if idle else out["logits"], token_weights, batch)
    terms = {"token_loss": token, "v_loss": v_loss, "q_loss": q_loss, "cql_loss": cql, "dm_loss": dm}
    scale = ("awac_weight", "v_loss_weight", "q_loss_weight", "cql_loss_weight", "dm_loss_weight")
    total = sum(weights[name] * term for name, term in zip(scale, terms.values(), strict=True) if weights[name])
    return total, terms, {**out, "weights": token_weights}


def encode_dialogue(dialogue, token_reward):
    """A row's tokens, states, actions, rewards and terminals (DOMAIN.md section 1)."""
    sequence, terminal = dialogue["sequence"], dialogue["terminal"]
    tokens = [BOS if sequence[0][1] is None else BOA]
    row = {name: [] for name in ("state_idxs", "action_idxs", "rewards")}
    row |= {f"utterance_{name}": [] for name in ("state_idxs", "action_idxs", "rewards")}
    for text, reward in sequence:
        start = len(tokens) - 1
        tokens += [CHARSET.index(c) for c in text] + [EOS if reward is None else EOA]
        if reward is not None:
            actions = list(range(start, len(tokens) - 1))
            earned = [token_reward(tokens[i + 1]) for i in actions]
            earned[-1] += reward
            row["state_idxs"] += actions
            row["action_idxs"] += actions
            row["rewards"] += earned
            row["utterance_state_idxs"].append(start)
            row["utterance_action_idxs"].append(len(tokens) - 1)
            row["utterance_rewards"].append(sum(earned))
    tokens += [EOD] if terminal else []
    for level in ("", "utterance_"):
        row[f"{level}terminals"] = [0] * len(row[f"{level}action_idxs"]) + [int(terminal)]
        row[f"{level}state_idxs"].append(len(tokens) - 1)
    return {"tokens": tokens, **row}


def collate(rows):
    """Pad rows to one shape; padding is index 0, reward 0, terminal 1."""
    pad = lambda lists, fill: np.array([x + [fill] * (max(map(len, lists)) - len(x)) for x in lists])  # noqa: E731
    tokens = pad([row["tokens"] for row in rows], PAD)
    arrays = {"tokens": tokens, "attn_mask": (tokens != PAD).astype(np.float32)}
    for level, short in (("", ""), ("utterance_", "u_")):
        for name, fill, kind in (
            ("state_idxs", 0, int),
            ("action_idxs", 0, int),
            ("rewards", 0.0, np.float32),
            ("terminals", 1, int),
        ):
            arrays[short + name] = pad([row[level + name] for row in rows], fill).astype(kind)
    batch = {name: torch.tensor(value) for name, value in arrays.items()}
    return arrays, batch | {"n_actions": [len(row["action_idxs"]) for row in rows]}


def make_case(settings, *, seed):
    """Draw parameters, compute all of a case's arrays, and complete its entry of cases.json."""
    torch.manual_seed(seed)
    reward = settings["token_reward"]
    table = lambda token: reward["table"][token] * reward["scale"] + reward["shift"]  # noqa: E731
    pay = table if isinstance(reward, dict) else lambda token: reward
    rows = [encode_dialogue(dialogue, pay) for dialogue in settings["dialogues"]]
    arrays, batch = collate(rows)
    model = ILQL(settings["model"], settings["gpt2"], VOCAB)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    out = {f"batch/{name}": value for name, value in arrays.items()} | compute_arrays(model, batch, settings["loss"])
    return out, {**settings, "datapoints": rows, "max_len": None, "beams": None}


def compute_arrays(model, batch, weights):
    """Compute a case's arrays from a model with its initial parameters."""
    out = {f"init/{name}": value.detach().numpy().copy() for name, value in model.state_dict().items()}
    total, terms, found = ilql_losses(model, batch, weights)
    total.backward()
    out |= {f"loss/{name}": term.item() for name, term in terms.items()} | {"loss/total": total.item()}
    for name in ("vs", "vns", "target_qs", "weights", "logits"):
        out[f"out/{name}"] = found[name].detach().numpy()
    out |= {f"out/q{i + 1}": q.detach().numpy() for i, q in enumerate(found["taken_qs"])}
    out |= {f"grad/{n}": p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}
    train(model, batch, weights, out)
    return out


def train(model, batch, weights, out):
    """Take three AdamW steps, each followed by the Polyak update, and note losses and parameters."""
    fast = [p for name, p in model.named_parameters() if not name.startswith(("target_", "lm_target"))]
    o = OPTIMIZER
    adamw = torch.optim.AdamW(fast, lr=o["lr"], weight_decay=o["weight_decay"], betas=(o["b1"], o["b2"]), eps=o["eps"])
    pairs = [(f"target_{name}", name) for name in model.q_names]
    pairs += [("lm_target", "model")] if model.options["seperate_target"] else []
    for step in range(3):
        adamw.zero_grad(set_to_none=True)
        total, _, _ = ilql_losses(model, batch, weights)
        total.backward()
        adamw.step()
        out[f"train_loss/{step}"] = total.item()
        with torch.no_grad():
            for slow, name in pairs:
                for a, b in zip(getattr(model, slow).parameters(), getattr(model, name).parameters(), strict=True):
                    a.lerp_(b, model.options["alpha"])
    out |= {f"after3/{name}": value.detach().numpy().copy() for name, value in model.state_dict().items()}


MODEL = {
    "alpha": 0.1, "gamma": 0.95, "beta": 0.7, "transition_weight": 0.2, "clip_weight": 1.5, "value_max": None,
    "value_min": None, "detach_v": False, "detach_pi": False, "detach_q": False, "double_q": True, "tau": 0.8,
    "seperate_policy": True, "seperate_target": True, "exp_weights": True, "dm_margin": 0.1, "advanced_mlp": False,
    "cql_temp": 0.5,
}  # fmt: skip
LOSS = {
    "awac_weight": 0.5, "v_loss_weight": 1.0, "q_loss_weight": 0.7, "cql_loss_weight": 0.3, "dm_loss_weight": 0.2,
    "mc_returns": False,
}  # fmt: skip
DIALOGUES = [
    {"sequence": [["ask", None], ["tell", 1.5], ["again", None], ["", -0.5]], "terminal": True},
    {"sequence": [["x", 0.25], ["why?", None], ["so. there!", 2.0]], "terminal": True},
]


def draw_settings(seed):
    """Draw a case's options."""
    rng = np.random.default_rng(seed)
    flag = lambda: bool(rng.integers(2))  # noqa: E731
    names = ("detach_v", "detach_pi", "detach_q", "double_q", "seperate_policy", "seperate_target", "exp_weights")
    model = MODEL | {name: flag() for name in names} | {"advanced_mlp": flag()}
    model |= {"value_min": -0.4, "value_max": 0.3} if flag() else {}
    model |= {"clip_weight": None} if flag() else {}
    reward = -0.1
    if flag():
        reward = {"table": rng.normal(size=VOCAB).round(3).tolist(), "scale": 0.3, "shift": -0.05}
    head = int(rng.integers(1, 4))
    return {
        "kind": "iql",
        "model": model,
        "loss": LOSS | {"mc_returns": flag(), "awac_weight": 0.5 * flag()},
        "gpt2": {"n_layer": int(rng.integers(1, 4)), "n_embd": 8 * head, "n_head": head, "n_positions": 40},
        "vocab": VOCAB,
        "dialogues": DIALOGUES[: 1 + int(rng.integers(2))],
        "token_reward": reward,
    }


def write_cases(folder, cases):
    """Write a folder that scripts/check_parity.py reads; `cases` maps names to (settings, seed)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, (settings, seed) in cases.items():
        arrays, entries[name] = make_case(settings, seed=seed)
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    shared = {"charset": CHARSET, "unk_id": UNK, "special": SPECIAL, "optimizer": OPTIMIZER, "cases": entries}
    (folder / "cases.json").write_text(json.dumps(shared))


if __name__ == "__main__":
    write_cases(sys.argv[1], {f"twin_{seed}": (draw_settings(seed), seed) for seed in map(int, sys.argv[2:])})
