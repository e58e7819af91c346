"""Dense layers as products in the shapes that a CPU's compiler does well."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ilqljax.models.half_products import apply_affine, is_half
from ilqljax.types import Array


class Dense(nn.Module):
    """A linear layer, with flax's own values and parameters: "kernel" [D F] and "bias" [F].

    Two things differ from `flax.linen.Dense`, for speed on a CPU. The product is one of two matrices, over rows [BT D],
    because the gradient of a kernel over x [B T D] would contract two axes at once, which XLA does at 0.4 times the
    rate. And a kernel may lie transposed (`transpose_kernels`).

    Attributes:
        features: outputs.
        dtype: of what is multiplied.
        out_dtype: of the outputs; "" is `dtype`.
        kernel_init: of the kernel.
    """

    features: int
    dtype: str = "float32"
    out_dtype: str = ""
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """Multiply by the kernel and add the bias."""
        if self.has_variable("params", "kernel_t"):
            layer = {"kernel_t": self.get_variable("params", "kernel_t")}
        else:
            layer = {"kernel": self.param("kernel", self.kernel_init, (x.shape[-1], self.features))}
        layer["bias"] = self.param("bias", nn.initializers.zeros, (self.features,))  # second, as in flax: it draws too
        return apply_dense(layer, x, self.dtype, self.out_dtype)


def apply_dense(
    layer: dict, x: Float[Array, "*B D"], dtype: str = "float32", out_dtype: str = ""
) -> Float[Array, "*B F"]:
    """Apply a linear layer's parameters, as `Dense` does; half precision goes to a CPU's units for it."""
    name, axis = ("kernel_t", 1) if "kernel_t" in layer else ("kernel", 0)
    rows, kernel, out_dtype = x.reshape(-1, x.shape[-1]).astype(dtype), layer[name], out_dtype or dtype
    if is_half(dtype) and jax.default_backend() == "cpu":
        return apply_affine(rows, kernel, layer["bias"], axis, out_dtype).reshape(*x.shape[:-1], -1)
    dimensions = (((1,), (axis,)), ((), ()))
    out = jax.lax.dot_general(rows, kernel.astype(dtype), dimensions, preferred_element_type=out_dtype)
    return out.reshape(*x.shape[:-1], -1) + layer["bias"].astype(out_dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def transpose_kernels(params: dict) -> dict:
    """Lay all kernels of linear layers transposed, as "kernel_t" [F D], for products of few rows.

    On a CPU, XLA's products of one to 32 rows read such a kernel at 1.4 to 1.6 times the rate (docs/performance.md).
    """
    turned = {}
    for name, value in params.items():
        if isinstance(value, dict):
            turned[name] = transpose_kernels(value)
        elif name == "kernel":
            turned["kernel_t"] = jnp.swapaxes(value, -1, -2)
        else:
            turned[name] = value
    return turned
