"""The networks as decoding reads them: chosen and laid out once, for any number of batches."""

from typing import NamedTuple

import jax

from ilqljax.models.cpu import decoding as on_cpu
from ilqljax.models.cpu import use_cpu_tricks
from ilqljax.models.value_lm import ValueLM, policy_trunk


class ActingNetworks(NamedTuple):
    """What acting needs of an ILQL or BC model.

    `trunks` are keyed by role: "policy", and where there is a critic with a trunk of its own, "value" and "target"; a
    trunk that two roles share appears once. `v` and `q` are the online V head and the target Q heads, {} without a
    critic.
    """

    trunks: dict
    v: dict
    q: dict


def prepare_for_decoding(model: ValueLM, params: dict, target: dict, *, critic: bool) -> ActingNetworks:
    """Choose what acting reads and have it on the device; on a CPU, lay it out for products of few rows.

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
    q = {name: target[name] for name in model.q_names} if critic else {}
    if use_cpu_tricks():
        trunks, q = on_cpu.lay_out(trunks, q, split=model.backbone.config.unroll >= model.backbone.config.n_layer)
    return jax.device_put(ActingNetworks(trunks, params["v"] if critic else {}, q))
