"""A language model with value heads: which networks there are, and how they are computed.

Parameters are plain nested dicts, and which networks exist is which keys the dicts have:

    params  {"trunk", "v", "q1", "q2"?, "policy"?}     an ILQL model; "policy" is a trunk of its own, else the policy
                                                       is the language model of "trunk" itself
    params  {"policy"}                                 a BC model: a language model and nothing else
    target  {"trunk"?, "q1", "q2"?}                    slow copies; without "trunk" they read the online trunk

A backbone is seen only through `ilqljax.models.backbone.Backbone`: hidden states, a cache, and sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ilqljax.config.sections import NO_OPTION
from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known
from ilqljax.models import heads
from ilqljax.models.backbone import Backbone, TrunkOutput

Params = dict


@dataclass(frozen=True)
class ValueLMConfig:
    """Which networks an ILQL model has.

    Attributes:
        double_q: two Q heads.
        separate_policy: a trunk of its own for the policy.
        separate_target: a slow copy of the value trunk, not only of its heads.
        advanced_mlp: the original's residual heads.
        level: what an action is: "token" (Q has one output per vocabulary entry) or "utterance" (Q is one number, read
            where the utterance ends); in a run the algorithm says which.
    """

    double_q: bool = True
    separate_policy: bool = True
    separate_target: bool = True
    advanced_mlp: bool = False
    level: str = field(default="token", metadata=NO_OPTION)


class HiddenStates(NamedTuple):
    """Hidden states that the value heads, the target heads and the policy's language-model head read."""

    value: Float[Array, "B T D"]
    target: Float[Array, "B T D"]
    policy: Float[Array, "B T D"] | None


class ValueLM:
    """A backbone with value heads, used functionally: every method takes the parameters it reads."""

    def __init__(self, backbone: Backbone, config: ValueLMConfig) -> None:
        check_known(("token", "utterance"), level=config.level)
        self.backbone = backbone
        self.config = config
        head: Callable[[int, str], nn.Module] = heads.MLPHead
        if config.advanced_mlp:
            head = partial(heads.ResidualMLPHead, n_inner=backbone.config.inner_size)
        n_q_outputs = backbone.config.vocab_size if config.level == "token" else 1
        self.v_head = head(1, backbone.config.dtype)
        self.q_head = head(n_q_outputs, backbone.config.dtype)

    def at_level(self, level: str) -> "ValueLM":
        """Return the same model with Q heads for actions of another level (`ValueLMConfig.level`)."""
        return self if level == self.config.level else ValueLM(self.backbone, replace(self.config, level=level))

    @property
    def q_names(self) -> tuple[str, ...]:
        """Names of the Q heads."""
        return ("q1", "q2") if self.config.double_q else ("q1",)

    def init_trunk(self, key: Array) -> Params:
        """Create the parameters of one trunk."""
        return self.backbone.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    def init_params(self, key: Array, *, trunk: Params | None = None) -> Params:
        """Create an ILQL model's online parameters, the trunks from `trunk` or at random; they start equal."""
        keys = jax.random.split(key, 4)
        trunk = self.init_trunk(keys[0]) if trunk is None else trunk
        hidden = jnp.zeros((1, self.backbone.config.n_embd))
        params = {"trunk": trunk, "v": self.v_head.init(keys[1], hidden)["params"]}
        for name, head_key in zip(self.q_names, keys[2:], strict=False):
            params[name] = self.q_head.init(head_key, hidden)["params"]
        if self.config.separate_policy:
            params["policy"] = trunk
        return params

    def init_target(self, params: Params) -> Params:
        """Copy what the target networks start from."""
        names = (*self.q_names, *(("trunk",) if self.config.separate_target else ()))
        return {name: params[name] for name in names}

    def compute_hidden(
        self,
        params: Params,
        target: Params,
        tokens: Int[Array, "B T"],
        *,
        policy: bool,
        dropout_key: Array | None = None,
    ) -> HiddenStates:
        """Run the trunks that are needed: the policy's only if `policy`, and dropout never in the target's.

        There is no dropout without a key. Hidden states of the target carry no gradient.
        """
        value_key, policy_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        online = self.run_trunk(params["trunk"], tokens, dropout_key=value_key)
        if "trunk" in target:
            slow = self.select_hidden(self.run_trunk(jax.lax.stop_gradient(target["trunk"]), tokens))
        else:
            slow = self.select_hidden(online)
        policy_hidden = None
        if policy:
            separate = "policy" in params
            output = self.run_trunk(params["policy"], tokens, dropout_key=policy_key) if separate else online
            policy_hidden = output.hidden
        return HiddenStates(self.select_hidden(online), jax.lax.stop_gradient(slow), policy_hidden)

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

    def compute_q_features(self, head_params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... F"]:
        """Compute the last features of a Q head; `heads.project`, `heads.take_outputs` or `finish_q` finish."""
        return heads.apply_features(self.q_head, head_params, hidden)

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

        Without `actions` (an utterance critic) the heads' single output is the value.
        """
        values = [self.finish_q(target[n], self.compute_q_features(target[n], hidden), actions) for n in self.q_names]
        return jax.lax.stop_gradient(jnp.min(jnp.stack(values), axis=0))

    def compute_target_q_all(self, target: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Compute min over the target heads of Q(s, .) for every action, as decoding needs it.

        The heads of an utterance critic, which has no value for a token, are a `UserError`.
        """
        values = [heads.project(target[n], self.compute_q_features(target[n], hidden)) for n in self.q_names]
        if values[0].shape[-1] != self.backbone.config.vocab_size:
            raise UserError("The Q heads have one output: an utterance critic cannot weigh tokens. Decode with beta=0.")
        return jnp.min(jnp.stack(values), axis=0)


def policy_trunk(params: Params) -> Params:
    """Return the trunk whose language model is the policy."""
    return params["policy"] if "policy" in params else params["trunk"]
