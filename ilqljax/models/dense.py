"""Linear layers whose outputs may be wider than what they multiply."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.data.types import Array
from ilqljax.models.cpu import products as on_cpu
from ilqljax.models.cpu import use_cpu_tricks


class Dense(nn.Module):
    """A linear layer, with the values and parameters of `flax.linen.Dense`: "kernel" [D F] and "bias" [F].

    Attributes:
        features: outputs.
        dtype: of what is multiplied.
        out_dtype: of the outputs, and of the sums; "" is `dtype`.
        kernel_init: of the kernel.
        use_bias: whether there is a bias.
    """

    features: int
    dtype: str = "float32"
    out_dtype: str = ""
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Multiply by the kernel and add the bias, if any."""
        if self.has_variable("params", "kernel_blocks"):  # laid out for acting on a CPU
            layer = {"kernel_blocks": self.get_variable("params", "kernel_blocks")}
        else:
            layer = {"kernel": self.param("kernel", self.kernel_init, (x.shape[-1], self.features))}
        if self.use_bias:
            layer["bias"] = self.param(
                "bias", nn.initializers.zeros, (self.features,)
            )  # second, as in flax: it draws too
        if self.has_variable("params", "lora_a"):
            layer |= {name: self.get_variable("params", name) for name in ("lora_scale", "lora_a", "lora_b")}
        return apply_dense(layer, x, self.dtype, self.out_dtype)


def apply_dense(
    layer: dict, x: Float[Array, "*B D"], dtype: str = "float32", out_dtype: str = ""
) -> Float[Array, "*B F"]:
    """Apply a linear layer's parameters, as `Dense` does, and its low-rank adapter (`ilqljax.models.lora`), if any."""
    out_dtype, bias = out_dtype or dtype, layer.get("bias")
    if use_cpu_tricks():
        out = on_cpu.apply_dense(layer, x, dtype, out_dtype)
    else:
        out = jnp.matmul(x.astype(dtype), layer["kernel"].astype(dtype), preferred_element_type=out_dtype)
        out = out if bias is None else out + bias.astype(out_dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    if "lora_a" in layer:
        inner = apply_dense({"kernel": layer["lora_a"]}, x, dtype)
        update = apply_dense({"kernel": layer["lora_b"]}, inner, dtype, out_dtype)
        out = out + layer["lora_scale"].astype(out_dtype) * update
    return out
