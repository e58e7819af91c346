"""A language model with value heads: which networks there are, and how they are computed.

Parameters are plain nested dicts, and which networks exist is which keys the dicts have:

    params  {"trunk", "v", "q1", "q2"?, "policy"?}     an ILQL model; "policy" is a trunk of its own, and "trunk" has no
                                                       language-model head, else the policy is that of "trunk" itself
    params  {"policy"}                                 a BC model: a language model and nothing else
    target  {"trunk"?, "q1", "q2"?}                    slow copies; without "trunk" they read the online trunk

With adapters (`ilqljax.models.lora`) "base" is the one frozen trunk, and "trunk" and "policy" are adapters of it;
without "trunk" the value heads read the base as it is, and with `frozen_value_layers` "trunk" is an adapter of the
other layers alone.

A backbone is seen only through `ilqljax.models.backbone.Backbone`: hidden states, a cache, and sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known, check_range, check_type
from ilqljax.models import heads, lora
from ilqljax.models.backbone import Backbone, TrunkOutput, take_layers

Params = dict


@dataclass(frozen=True)
class ValueLMConfig:
    """Which networks an ILQL model has.

    Attributes:
        double_q: two Q heads.
        separate_policy: a trunk of its own for the policy.
        separate_target: a slow copy of the value trunk, not only of its heads.
        advanced_mlp: the original's residual heads.
        q_head: how a Q head weighs tokens: "full" (the original's), "low_rank" or "tied" (`ilqljax.models.heads`).
        q_rank: features of a low-rank Q head.
        lora_rank: rank of the low-rank adapters that are trained in place of a trunk that stays as it is; 0 trains the
            trunk itself.
        lora_alpha: an adapter's update is multiplied by `lora_alpha / lora_rank`.
        lora_targets: linear layers that get adapters, such as ("q_proj", "v_proj"); () is all of the blocks.
        base_dtype: of a frozen trunk's parameters, "float32" or "bfloat16".
        frozen_value: the value heads read the frozen trunk without an adapter; needs `lora_rank`.
        frozen_value_layers: first layers of the value trunk that have no adapter; the others' are trained. Needs
            `lora_rank`; 0 is none of them, and all of them are `frozen_value`.
        level: what an action is: "token" (Q has one output per vocabulary entry) or "utterance" (Q is one number, read
            where the utterance ends); in a run the algorithm says which.
        n_new_rows: last rows of the embeddings, of the control tokens, which adapters train whole.
    """

    double_q: bool = True
    separate_policy: bool = True
    separate_target: bool = True
    advanced_mlp: bool = False
    q_head: str = "full"
    q_rank: int = 64
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_targets: tuple[str, ...] = ()
    base_dtype: str = "float32"
    frozen_value: bool = False
    frozen_value_layers: int = 0
    level: str = field(default="token", metadata=NO_OPTION)
    n_new_rows: int = field(default=6, metadata=NO_OPTION)

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "lora_rank", "n_new_rows", "frozen_value_layers")
        check_range(self, "(0, inf)", "lora_alpha")
        check_known(("token", "utterance"), level=self.level)
        check_known(("full", "low_rank", "tied"), q_head=self.q_head)
        check_known(("float32", "bfloat16"), base_dtype=self.base_dtype)
        check_range(self, "[1, inf)", "q_rank")
        if self.q_head == "tied" and self.advanced_mlp:
            raise UserError("q_head='tied' has no residual form. Set advanced_mlp=False, or q_head='low_rank'.")
        if self.frozen_value and self.frozen_value_layers:
            raise UserError(
                f"frozen_value=True freezes all layers, frozen_value_layers={self.frozen_value_layers} some. Set one."
            )
        if self.freezes_value and not (self.lora_rank and self.separate_policy):
            name, off = ("frozen_value_layers", 0) if self.frozen_value_layers else ("frozen_value", False)
            raise UserError(
                f"{name}={getattr(self, name)} keeps layers of the value trunk as they are, so that the policy needs "
                f"adapters of its own. Set lora_rank (16, say) and separate_policy=True, or {name}={off}."
            )

    @property
    def freezes_value(self) -> bool:
        """Whether first layers of the value trunk, or all of it, stay as they are."""
        return self.frozen_value or self.frozen_value_layers > 0


class HiddenStates(NamedTuple):
    """Hidden states that the value heads, the target heads and the policy's language-model head read."""

    value: Float[Array, "B T D"]
    target: Float[Array, "B T D"]
    policy: Float[Array, "B T D"] | None


class ValueLM:
    """A backbone with value heads, used functionally: every method takes the parameters it reads."""

    def __init__(self, backbone: Backbone, config: ValueLMConfig) -> None:
        check_type(Backbone, "Give a GPT2 or a Llama.", backbone=backbone)
        check_type(ValueLMConfig, "Give a ValueLMConfig.", config=config)
        self.backbone = backbone
        self.config = config
        n_layer = backbone.config.n_layer
        if config.frozen_value_layers >= n_layer:
            raise UserError(
                f"frozen_value_layers={config.frozen_value_layers} leaves none of the model's {n_layer} layers to be "
                f"trained. Set it to {n_layer - 1} at most, or frozen_value=True, which freezes all of them."
            )
        head: Callable[..., nn.Module] = heads.MLPHead
        if config.advanced_mlp:
            head = partial(heads.ResidualMLPHead, n_inner=backbone.config.inner_size)
        n_q_outputs = backbone.config.vocab_size if config.level == "token" else 1
        self.v_head = head(1, backbone.config.dtype)
        self.q_head = head(n_q_outputs, backbone.config.dtype)
        self.tied = config.q_head == "tied" and config.level == "token"
        if self.tied:
            self.q_head = heads.TiedHead(n_q_outputs, backbone.config.dtype)
        elif config.q_head == "low_rank" and config.level == "token":
            self.q_head = head(n_q_outputs, backbone.config.dtype, rank=config.q_rank)

    def at_level(self, level: str) -> "ValueLM":
        """Return the same model with Q heads for actions of another level (`ValueLMConfig.level`)."""
        return self if level == self.config.level else ValueLM(self.backbone, replace(self.config, level=level))

    @property
    def q_names(self) -> tuple[str, ...]:
        """Names of the Q heads."""
        return ("q1", "q2") if self.config.double_q else ("q1",)

    def init_trunk(self, key: Array) -> Params:
        """Create the parameters of one trunk, with an adapter where the config asks for one."""
        return self.adapt_trunk(key, self.backbone.init(key, jnp.zeros((1, 1), jnp.int32))["params"])

    def adapt_trunk(self, key: Array, trunk: Params) -> Params:
        """Give a trunk an adapter where the config asks for one and it has none yet."""
        c = self.config
        if not c.lora_rank or lora.split_adapter(trunk)[1]:
            return trunk
        trunk = jax.tree.map(lambda x: x.astype(jnp.dtype(c.base_dtype)), trunk)
        return lora.attach_adapter(
            key, trunk, rank=c.lora_rank, alpha=c.lora_alpha, targets=c.lora_targets, n_rows=c.n_new_rows
        )

    def init_params(self, key: Array, *, trunk: Params | None = None) -> Params:
        """Create an ILQL model's online parameters, the trunks from `trunk` or at random; they start equal."""
        keys = jax.random.split(key, 4)
        trunk = self.init_trunk(keys[0]) if trunk is None else self.adapt_trunk(keys[0], trunk)
        hidden = jnp.zeros((1, self.backbone.config.n_embd))
        params = {"v": self.v_head.init(keys[1], hidden)["params"]}
        if self.config.lora_rank:
            params["base"], trunk = lora.split_adapter(trunk)
        if not self.config.frozen_value:
            params["trunk"] = drop_head(trunk) if self.config.separate_policy else trunk
        if n := self.config.frozen_value_layers:  # the embeddings' rows are below them
            params["trunk"] = {"h": take_layers(trunk, n, None)["h"]}
        for name, head_key in zip(self.q_names, keys[2:], strict=False):
            params[name] = self.q_head.init(head_key, hidden)["params"]
        if self.config.separate_policy:
            params["policy"] = trunk
        return params

    def init_target(self, params: Params) -> Params:
        """Copy what the target networks start from."""
        separate = self.config.separate_target and "trunk" in params
        names = (*self.q_names, *(("trunk",) if separate else ()))
        return {name: params[name] for name in names}

    def compute_hidden(
        self,
        params: Params,
        target: Params,
        tokens: Int[Array, "B T"],
        *,
        policy: bool,
        dropout_key: Array | None = None,
        known: Float[Array, "B T D"] | None = None,
    ) -> HiddenStates:
        """Run the trunks that are needed: the policy's only if `policy`, and dropout only in what is trained.

        There is no dropout without a key. Hidden states of the target carry no gradient. `known` are those of
        `run_frozen`, which is then not run.
        """
        c = self.config
        value_key, policy_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        frozen: Any = self.run_frozen(params["base"], tokens) if c.freezes_value and known is None else known
        frozen = jax.lax.stop_gradient(frozen)
        if c.frozen_value:
            online = slow = frozen.astype(jnp.float32)
        else:
            output = self.run_value(params, tokens, frozen, dropout_key=value_key)
            online = slow = self.select_hidden(output)
            if "trunk" in target:
                slow_params = jax.lax.stop_gradient({**params, "trunk": target["trunk"]})
                slow = self.select_hidden(self.run_value(slow_params, tokens, frozen))
        policy_hidden = None
        if policy:
            if "policy" in params:
                output = self.run_trunk(policy_trunk(params), tokens, dropout_key=policy_key)
            policy_hidden = output.hidden
        return HiddenStates(online, jax.lax.stop_gradient(slow), policy_hidden)

    def run_frozen(self, base: Params, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Run what stays as it is of the value trunk, which is a base's alone.

        Returns what value heads read, or with `frozen_value_layers` what the first of the other layers reads.
        """
        if n := self.config.frozen_value_layers:
            return self.run_trunk(take_layers(base, 0, n), tokens).block_output
        return self.select_hidden(self.run_trunk(base, tokens))

    def run_value(
        self,
        params: Params,
        tokens: Int[Array, "B T"],
        known: Float[Array, "B T D"] | None,
        *,
        dropout_key: Array | None = None,
    ) -> TrunkOutput:
        """Run the value trunk, from what is `known` of its frozen layers where it has some."""
        if n := self.config.frozen_value_layers:
            params = {**params, "base": take_layers(params["base"], n, None)}
        return self.run_trunk(get_trunk(params, "trunk"), tokens, hidden=known, dropout_key=dropout_key)

    def run_trunk(
        self,
        trunk: Params,
        tokens: Int[Array, "B T"],
        *args: object,
        dropout_key: Array | None = None,
        **kwargs: object,
    ) -> TrunkOutput:
        """Run one trunk; further arguments go to the backbone."""
        if dropout_key is not None:
            kwargs |= {"rngs": {"dropout": dropout_key}, "deterministic": False}
        return self.backbone.apply({"params": trunk}, tokens, *args, **kwargs)

    def select_hidden(self, output: TrunkOutput) -> Float[Array, "B ... D"]:
        """Pick what value heads read, in float32: after the final layer norm, or before it (`advanced_mlp`)."""
        return (output.block_output if self.config.advanced_mlp else output.hidden).astype(jnp.float32)

    def compute_v(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "..."]:
        """Compute V(s)."""
        values: Array = self.v_head.apply({"params": params["v"]}, hidden)
        return values[..., 0]

    def get_q_heads(self, networks: Params, params: Params) -> Params:
        """Return the Q heads of online or target `networks`, with the value trunk's embeddings where they are tied."""
        if not self.tied:
            return {name: networks[name] for name in self.q_names}
        embedding = jax.lax.stop_gradient((params["base"] if "base" in params else params["trunk"])["wte"])
        return {name: {**networks[name], "embedding": embedding} for name in self.q_names}

    def compute_q_features(self, head_params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... F"]:
        """Compute the last features of a Q head; `heads.project`, `heads.take_outputs` or `finish_q` finish."""
        return heads.apply_features(self.q_head, {n: p for n, p in head_params.items() if n != "embedding"}, hidden)

    def finish_q(
        self, head_params: Params, features: Float[Array, "... F"], actions: Int[Array, "..."] | None
    ) -> Float[Array, "..."]:
        """Compute Q of taken `actions` from a head's features, or its single output where there are none."""
        if actions is None:
            return heads.project(head_params, features)[..., 0]
        return heads.take_outputs(head_params, features, actions)

    def compute_target_q(
        self, target: Params, hidden: Float[Array, "... D"], actions: Int[Array, "..."] | None
    ) -> Float[Array, "..."]:
        """Compute min over the target heads of Q(s, a) for taken `actions`; the vocabulary is never touched.

        Without `actions` (an utterance critic) the single output is the value. `target` holds heads as `get_q_heads`
        gives them.
        """
        values = [self.finish_q(target[n], self.compute_q_features(target[n], hidden), actions) for n in self.q_names]
        return jax.lax.stop_gradient(jnp.min(jnp.stack(values), axis=0))

    def compute_target_q_all(self, target: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Compute min over the target heads of Q(s, .) for every action, as decoding needs it.

        The heads of an utterance critic, which has no value for a token, are a `UserError`.
        """
        features = [self.compute_q_features(target[n], hidden) for n in self.q_names]
        values = heads.project_each([target[n] for n in self.q_names], features)
        if values[0].shape[-1] != self.backbone.config.vocab_size:
            raise UserError("The Q heads have one output: an utterance critic cannot weigh tokens. Decode with beta=0.")
        return jnp.min(jnp.stack(values), axis=0)


def drop_head(trunk: Params) -> Params:
    """Return a trunk without a language-model head of its own, which one that only values are read of does not need."""
    return {name: x for name, x in trunk.items() if name not in ("lm_head", "lm_head_rows")}


def policy_trunk(params: Params) -> Params:
    """Return the trunk whose language model is the policy."""
    return get_trunk(params, "policy" if "policy" in params else "trunk")


def get_trunk(params: Params, name: str) -> Params:
    """Return the trunk of a name; where there is a base, that is the base with the adapter of that name, if any."""
    return lora.join_adapter(params["base"], params.get(name, {})) if "base" in params else params[name]


def merge_adapters(model: ValueLM, params: Params, target: Params) -> tuple[ValueLM, Params, Params]:
    """Fold adapters into trunks of their own: networks as they are without adapters, which compute the same."""
    if "base" not in params:
        return model, params, target
    names = {"policy", "trunk"} & params.keys() | ({"trunk"} if "v" in params else set())

    def merge(networks: Params, name: str) -> Params:
        merged = lora.merge_adapter(get_trunk({**params, **networks}, name))
        return drop_head(merged) if name == "trunk" and "policy" in params else merged

    trunks = {name: merge(params, name) for name in names}
    if "trunk" in target:
        target = {**target, "trunk": merge({"trunk": target["trunk"]}, "trunk")}
    merged = {name: tree for name, tree in params.items() if name != "base"} | trunks
    plain = replace(
        model.config, lora_rank=0, frozen_value=False, frozen_value_layers=0, separate_target="trunk" in target
    )
    return ValueLM(model.backbone, plain), merged, target
