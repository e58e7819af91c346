"""The same work in plain PyTorch, as a user would write it after the original: the other side of the comparison.

Three GPT2LMHeadModel trunks, Q heads over the whole vocabulary at every action (online and target), AdamW, a Polyak
loop over parameters, a cached decode loop; for the reward, one text at a time. Needs the `torch` extra.
"""

import inspect
from collections.abc import Callable

import torch
from torch import nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, GPT2Model

from ilqljax.bench.work import SEED, VOCAB_SIZE, ActWork, RewardWork, Sizes, TrainWork, Work

DISCOUNT, EXPECTILE, CQL_WEIGHT, POLYAK = 0.99, 0.7, 0.25, 0.005


def make_run(work: Work) -> Callable[[], None]:
    """Prepare an item; what is prepared is not part of a run."""
    torch.manual_seed(SEED)
    makers = {TrainWork: make_train, ActWork: make_act, RewardWork: make_reward}
    return makers[type(work)](work)


def make_trunk(sizes: Sizes) -> GPT2LMHeadModel:
    """Make a GPT-2 with random weights, dropout off."""
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=sizes.n_positions,
        n_embd=sizes.width,
        n_layer=sizes.n_layer,
        n_head=sizes.n_head,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def make_head(width: int, n_outputs: int) -> nn.Module:
    """Make a value head of the original."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, n_outputs))


class ValueModel(nn.Module):
    """The original's networks: online and target trunk, V, two Q heads and their targets, a policy trunk."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.trunk, self.target, self.policy = (make_trunk(sizes) for _ in range(3))
        self.v = make_head(sizes.width, 1)
        self.q = nn.ModuleList([make_head(sizes.width, VOCAB_SIZE) for _ in range(2)])
        self.target_q = nn.ModuleList([make_head(sizes.width, VOCAB_SIZE) for _ in range(2)])


def make_train(work: TrainWork) -> Callable[[], None]:
    """Prepare an eager training step."""
    tokens = torch.from_numpy(work.make_tokens()).long()
    first = work.length - work.n_actions - 1
    taken = tokens[:, first + 1 :]
    model = ValueModel(work.sizes) if work.critic else make_trunk(work.sizes)
    if work.critic:
        fast = [*model.trunk.parameters(), *model.v.parameters(), *model.q.parameters()]
        optimizer = torch.optim.AdamW(fast, lr=1e-5)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def compute_bc_loss() -> torch.Tensor:
        logits = model(tokens).logits[:, first:-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), taken.flatten())

    def compute_ilql_loss() -> torch.Tensor:
        hidden = model.trunk.transformer(tokens).last_hidden_state[:, first:]
        with torch.no_grad():
            slow = model.target.transformer(tokens).last_hidden_state[:, first:-1]
            slow_qs = torch.stack([q(slow).gather(2, taken[..., None])[..., 0] for q in model.target_q])
            target_q = slow_qs.min(0).values
        v = model.v(hidden)[..., 0]
        v_next = v[:, 1:].detach().clone()
        v_next[:, -1] = 0.0
        rewards = torch.zeros_like(v_next)
        rewards[:, -1] = -1.0
        loss = torch.zeros(())
        for q in model.q:
            values = q(hidden[:, :-1])
            q_t = values.gather(2, taken[..., None])[..., 0]
            loss = loss + ((rewards + DISCOUNT * v_next - q_t) ** 2).mean()
            loss = loss + CQL_WEIGHT * nn.functional.cross_entropy(values.flatten(0, 1), taken.flatten())
        gap = target_q - v[:, :-1]
        return loss + (torch.where(gap < 0, 1 - EXPECTILE, EXPECTILE) * gap**2).mean()

    def run() -> None:
        loss = compute_ilql_loss() if work.critic else compute_bc_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if work.critic:
            with torch.no_grad():
                for slow, online in ((model.target, model.trunk), (model.target_q, model.q)):
                    for a, b in zip(slow.parameters(), online.parameters(), strict=True):
                        a.copy_((1 - POLYAK) * a + POLYAK * b)
        loss.item()

    return run


def make_act(work: ActWork) -> Callable[[], None]:
    """Prepare a decode loop over cached trunks."""
    model = ValueModel(work.sizes).eval()
    # transformers renamed the argument in 5.x.
    cache_name = "cache" if "cache" in inspect.signature(GPT2Model.forward).parameters else "past_key_values"
    prompt = torch.randint(0, 50_257, (work.batch_size, work.prompt))

    @torch.no_grad()
    def run() -> None:
        step, caches = prompt, {name: DynamicCache() for name in ("policy", "trunk", "target")}
        for _ in range(work.n_new):
            hidden = {}
            for name in caches:
                trunk = getattr(model, name).transformer
                out = trunk(step, use_cache=True, **{cache_name: caches[name]})
                hidden[name] = out.last_hidden_state[:, -1]
            log_p = torch.log_softmax(model.policy.lm_head(hidden["policy"]), -1)
            q = torch.stack([q(hidden["target"]) for q in model.target_q]).min(0).values
            scores = log_p + work.beta * (q - model.v(hidden["trunk"]))
            step = torch.multinomial(torch.softmax(scores, -1), 1)

    return run


def make_reward(work: RewardWork) -> Callable[[], None]:
    """Prepare a search of one text at a time over all candidates."""
    candidates, texts = (torch.from_numpy(x) for x in work.make_vectors())

    def run() -> None:
        for text in texts:
            nn.functional.cosine_similarity(candidates, text[None]).topk(work.k)

    return run
