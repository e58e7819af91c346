"""The networks as decoding reads them: chosen and laid out once, for any number of batches."""

from functools import partial
from typing import NamedTuple

import jax

from ilqljax.models.gpt2 import split_layers
from ilqljax.models.products import transpose_kernels
from ilqljax.models.value_lm import ValueLM, policy_trunk


class ActingNetworks(NamedTuple):
    """What acting needs of an ILQL or BC model, laid out for products of few rows.

    `trunks` are keyed by role: "policy", and where there is a critic with a trunk of its own, "value" and "target"; a
    trunk that two roles share appears once. `v` and `q` are the online V head and the target Q heads, {} without a
    critic.
    """

    trunks: dict
    v: dict
    q: dict


@partial(jax.jit, static_argnames=("model", "critic"))
def lay_out_networks(model: ValueLM, params: dict, target: dict, *, critic: bool) -> ActingNetworks:
    """Choose what acting reads, and lay it out: layers apart, kernels transposed.

    Both are copies of what they replace, made here once; within a sampler they would be made for every batch.

    Args:
        model: the networks.
        params: online parameters.
        target: target parameters; {} for a BC model.
        critic: whether the critic has a say (`DecodeConfig.beta` is not 0).
    """
    trunks = {"policy": policy_trunk(params)}
    if critic and "policy" in params:
        trunks["value"] = params["trunk"]
    if critic and "trunk" in target:
        trunks["target"] = target["trunk"]
    trunks = {role: split_layers(model.backbone.config, trunk) for role, trunk in trunks.items()}
    if not critic:
        return ActingNetworks(trunks, {}, {})
    return ActingNetworks(trunks, params["v"], transpose_kernels({name: target[name] for name in model.q_names}))
