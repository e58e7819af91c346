"""The same work in plain PyTorch, as a user would write it after the original: the other side of the comparison.

Three GPT2LMHeadModel trunks, Q heads over the whole vocabulary at every action (online and target), AdamW, a Polyak
loop over parameters, a cached decode loop; for the reward, one text at a time. A pretrained model is transformers' own,
with adapters as peft computes them, its frozen trunk without gradients, and `generate`. Half precision is
torch.autocast, on a GPU where there is one, and in `generate` a model of that dtype. Needs the `torch` extra.
"""

import copy
import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GgufConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
)

from benchmarks.speed.work import (
    N_CONTROL,
    SEED,
    SMOLLM2,
    SMOLLM2_PACKAGE,
    VOCAB_SIZE,
    ActWork,
    AdapterWork,
    HeadsWork,
    PretrainedWork,
    RaggedWork,
    RewardWork,
    SampleWork,
    Sizes,
    StartupWork,
    TrainWork,
    Work,
)

DISCOUNT, EXPECTILE, CQL_WEIGHT, POLYAK = 0.99, 0.7, 0.25, 0.005


def make_run(work: Work) -> Callable[[int], float | None]:
    """Prepare an item; what is prepared is not part of a run, which takes the number of the round.

    What a run returns is what `benchmarks.speed.ours.make_run` says.
    """
    torch.manual_seed(SEED)
    makers = {
        TrainWork: make_train,
        RaggedWork: make_ragged,
        StartupWork: lambda startup: make_train(startup.work),
        ActWork: make_act,
        RewardWork: make_reward,
        AdapterWork: make_adapter_train,
        HeadsWork: make_heads_train,
        SampleWork: make_sample,
    }
    return makers[type(work)](work)


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def autocast(dtype: str) -> torch.autocast:
    """Make the context in which work of a dtype runs."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")


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


def make_train(work: TrainWork) -> Callable[[int], None]:
    """Prepare an eager training step."""
    tokens = torch.from_numpy(work.make_tokens()).long().to(DEVICE)
    first = work.length - work.n_actions - 1
    if not work.critic:
        step = make_bc_step(work.sizes, dtype=work.dtype)
        return lambda number: step(tokens, first)
    states = torch.arange(first, work.length, device=DEVICE).expand(work.batch_size, -1)
    mask = torch.ones(work.batch_size, work.n_actions, device=DEVICE)
    step = make_ilql_step(work.sizes, dtype=work.dtype)
    return lambda number: step(tokens, states, mask)


def make_ragged(work: RaggedWork) -> Callable[[int], None]:
    """Prepare eager steps on batches padded to their longest row."""
    step, n = make_ilql_step(work.sizes, dtype=work.dtype), work.batch_size * work.n_steps
    generator = torch.Generator().manual_seed(SEED)

    def run(number: int) -> None:
        first = number % work.n_rounds * n
        for start in range(first, first + n, work.batch_size):
            lengths = work.lengths[start : start + work.batch_size]
            longest = max(map(sum, lengths)) + 1  # the end of the dialogue
            tokens = torch.randint(0, 50_257, (len(lengths), longest), generator=generator)
            width = max(rewrite for _, rewrite in lengths)
            states = torch.zeros(len(lengths), width + 1, dtype=torch.long)
            mask = torch.zeros(len(lengths), width)
            for i, (prompt, rewrite) in enumerate(lengths):
                states[i, : rewrite + 1] = torch.arange(prompt - 1, prompt + rewrite)
                mask[i, :rewrite] = 1.0
            step(tokens.to(DEVICE), states.to(DEVICE), mask.to(DEVICE))

    return run


def make_bc_step(sizes: Sizes, *, dtype: str) -> Callable[[torch.Tensor, int], None]:
    """Prepare a cloning step on tokens whose actions begin at one position in all rows."""
    model = make_trunk(sizes).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(tokens: torch.Tensor, first: int) -> None:
        with autocast(dtype):
            logits = model(tokens).logits[:, first:-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, first + 1 :].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def make_ilql_step(sizes: Sizes, *, dtype: str) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]:
    """Prepare an ILQL step on (tokens, states, mask of the actions): one reward at the end of each row."""
    model = ValueModel(sizes).to(DEVICE)
    optimizer = torch.optim.AdamW([*model.trunk.parameters(), *model.v.parameters(), *model.q.parameters()], lr=1e-5)

    def compute_loss(tokens: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        taken = tokens.gather(1, states[:, :-1] + 1)
        index = states[..., None].expand(-1, -1, sizes.width)
        hidden = model.trunk.transformer(tokens).last_hidden_state.gather(1, index)
        with torch.no_grad():
            slow = model.target.transformer(tokens).last_hidden_state.gather(1, index)
        return compute_critic_loss(model, hidden, slow, taken, mask)

    def step(tokens: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> None:
        with autocast(dtype):
            loss = compute_loss(tokens, states, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        move_targets((model.target, model.trunk), (model.target_q, model.q))
        loss.item()

    return step


@torch.no_grad()
def move_targets(*pairs: tuple[nn.Module, nn.Module]) -> None:
    """Move slow copies towards the modules that they are of."""
    for slow, online in pairs:
        for a, b in zip(slow.parameters(), online.parameters(), strict=True):
            a.copy_((1 - POLYAK) * a + POLYAK * b)


def compute_critic_loss(
    model: nn.Module, hidden: torch.Tensor, slow: torch.Tensor, taken: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Compute ILQL's loss of V, Q heads and target heads on the states' hidden states: one reward at each row's end."""
    with torch.no_grad():
        slow_qs = torch.stack([q(slow[:, :-1]).gather(2, taken[..., None])[..., 0] for q in model.target_q])
        target_q = slow_qs.min(0).values
    v = model.v(hidden)[..., 0]
    last = nn.functional.pad(mask, (0, 1))[:, 1:] == 0.0
    v_next = torch.where(last, 0.0, v[:, 1:].detach())
    rewards = -(last & (mask > 0)).float()

    def mean(values: torch.Tensor) -> torch.Tensor:
        return (values * mask).sum() / mask.sum()

    loss = torch.zeros((), device=DEVICE)
    for q in model.q:
        values = q(hidden[:, :-1])
        q_t = values.gather(2, taken[..., None])[..., 0]
        loss = loss + mean((rewards + DISCOUNT * v_next - q_t) ** 2)
        cql = nn.functional.cross_entropy(values.flatten(0, 1), taken.flatten(), reduction="none")
        loss = loss + CQL_WEIGHT * mean(cql.view_as(mask))
    gap = target_q - v[:, :-1]
    return loss + mean(torch.where(gap < 0, 1 - EXPECTILE, EXPECTILE) * gap**2)


def make_act(work: ActWork) -> Callable[[int], None]:
    """Prepare a decode loop over cached trunks."""
    model = ValueModel(work.sizes).eval().to(DEVICE)
    # transformers renamed the argument in 5.x.
    cache_name = "cache" if "cache" in inspect.signature(GPT2Model.forward).parameters else "past_key_values"
    prompt = torch.randint(0, 50_257, (work.batch_size, work.prompt), device=DEVICE)

    @torch.no_grad()
    @autocast(work.dtype)
    def run(number: int) -> None:
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
            step = torch.multinomial(torch.softmax(scores.float(), -1), 1)
        step.cpu()

    return run


def load_pretrained(work: PretrainedWork, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load the item's model, frozen, with embeddings for the control tokens: the mean of the others."""
    source, options = work.path, {}
    if source == SMOLLM2:
        source = Path(importlib.util.find_spec(SMOLLM2_PACKAGE).submodule_search_locations[0])
        file = next(source.glob("*.gguf")).name
        options = {"gguf_file": file, "quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options).to(DEVICE).requires_grad_(False)
    model.resize_token_embeddings(work.sizes.vocab_size, mean_resizing=False)
    rows = model.get_input_embeddings().weight
    rows[-N_CONTROL:] = rows[:-N_CONTROL].float().mean(0).to(dtype)
    return model


class Adapted(nn.Module):
    """A frozen linear layer and its low-rank adapter of weight 16 / rank."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer, self.scale = layer, 16.0 / rank
        self.a, self.b = nn.Linear(layer.in_features, rank, False), nn.Linear(rank, layer.out_features, False)
        nn.init.kaiming_uniform_(self.a.weight, a=math.sqrt(5))
        nn.init.zeros_(self.b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.scale * self.b(self.a(x))


def make_adapter_train(work: AdapterWork) -> Callable[[int], float]:
    """Prepare a cloning step of adapters; logits are computed where the actions are."""
    model = load_pretrained(work)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(part, name, Adapted(layer, work.rank))
    model.to(DEVICE)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    tokens = torch.from_numpy(work.make_tokens()).long().to(DEVICE)
    n_targets = work.batch_size * (work.length - 1)  # what the loss of `ilqljax.rl.objectives` divides by

    def run(number: int) -> float:
        with autocast(work.dtype):
            logits = model(tokens, use_cache=False, logits_to_keep=work.n_actions + 1).logits[:, :-1].flatten(0, 1)
            taken = tokens[:, -work.n_actions :].flatten()
            loss = nn.functional.cross_entropy(logits, taken, reduction="sum") / n_targets
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


class Heads(nn.Module):
    """V, and low-rank Q heads with their targets, from given weights."""

    def __init__(self, work: HeadsWork) -> None:
        super().__init__()
        drawn = work.draw_heads()
        self.v, self.q = load_head(drawn["v"]), nn.ModuleList([load_head(drawn[name]) for name in ("q1", "q2")])
        self.target_q = copy.deepcopy(self.q).requires_grad_(False)


def load_head(layers: dict) -> nn.Module:
    """Make a head of drawn layers, with a ReLU after the first."""
    linear = []
    for layer in layers.values():
        linear.append(nn.Linear(*layer["kernel"].shape, bias="bias" in layer))
        linear[-1].weight.data = torch.from_numpy(layer["kernel"]).T.contiguous()
        if "bias" in layer:
            linear[-1].bias.data = torch.from_numpy(layer["bias"])
    return nn.Sequential(linear[0], nn.ReLU(), *linear[1:])


def make_heads_train(work: HeadsWork) -> Callable[[int], float]:
    """Prepare an ILQL step of heads: the frozen trunk is run at every step, without gradients."""
    trunk, model = load_pretrained(work).model, Heads(work).to(DEVICE)
    optimizer = torch.optim.AdamW([*model.v.parameters(), *model.q.parameters()], lr=1e-5)
    tokens = torch.from_numpy(work.make_tokens()).long().to(DEVICE)
    taken = tokens[:, -work.n_actions :]
    mask = torch.ones(taken.shape, device=DEVICE)

    def run(number: int) -> float:
        with autocast(work.dtype):
            with torch.no_grad():
                hidden = trunk(tokens, use_cache=False).last_hidden_state[:, -work.n_actions - 1 :]
            loss = compute_critic_loss(model, hidden, hidden, taken, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        move_targets((model.target_q, model.q))
        return loss.item()

    return run


def make_sample(work: SampleWork) -> Callable[[int], float]:
    """Prepare transformers' `generate`; no token ends an utterance."""
    model = load_pretrained(work, getattr(torch, work.dtype)).eval()
    prompt = torch.from_numpy(work.draw_tokens(work.prompt)).long().to(DEVICE)
    mask = torch.ones_like(prompt)
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id = None, work.sizes.n_text
    settings.max_length = None
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": work.top_p, "max_new_tokens": work.n_new}
    with torch.no_grad():
        value = torch.log_softmax(model(prompt).logits[:, -1].float(), -1).max(-1).values.mean().item()

    def run(number: int) -> float:
        tokens = model.generate(prompt, attention_mask=mask, **options)
        assert tokens.shape[1] == work.prompt + work.n_new, "an utterance ended early"
        return value

    return run


def make_reward(work: RewardWork) -> Callable[[int], None]:
    """Prepare a search of one text at a time over all candidates."""
    candidates, texts = (torch.from_numpy(x).to(DEVICE) for x in work.make_vectors())

    def run(number: int) -> None:
        for text in texts:
            nn.functional.cosine_similarity(candidates, text[None]).topk(work.k)

    return run
