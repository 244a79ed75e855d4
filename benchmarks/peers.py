"""The same problems in other libraries, each in the form that suits it best. Needs the extra `bench`.

- One block of a real network with fresh weights, in NumPy and in PyTorch.
- The SDE of the shaped Transformer (theory §4, no mask, one head) in torchsde and diffrax by Euler–Maruyama, with the
  noise in three forms: *factored*, the few small products of theory §4 (a result of this project); *matrix*, the same
  as an (m², 2m²) matrix times the Brownian increment, these libraries' common interface; and *root*, the square root of
  the dense Σ(V), the equation as it stands in the paper.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchsde
from diffrax import ControlTerm, DirectAdjoint, Euler, MultiTerm, ODETerm, UnsafeBrownianPath, diffeqsolve
from lineax import FunctionLinearOperator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Noise = Literal["factored", "matrix", "root"]
GAMMA, TAU0, C_PLUS, C_MINUS = 0.5, 1.0, 0.0, -1.0
SKIP = math.sqrt(1 - GAMMA**2)

jax.config.update("jax_enable_x64", True)  # noqa: FBT003


def _slopes(n: int) -> tuple[float, float]:
    plus, minus = 1 + C_PLUS / math.sqrt(n), 1 + C_MINUS / math.sqrt(n)
    unit = math.sqrt(2 / (plus**2 + minus**2))
    return unit * plus, unit * minus


def numpy_block(x: NDArray[Any], mlp: bool, rng: np.random.Generator) -> NDArray[Any]:
    """One block of `shaped_attention_only`, or of `shaped_transformer` if `mlp`, on x (batch, m, n), fresh weights."""
    batch, m, n = x.shape

    def linear(x: NDArray[Any]) -> NDArray[Any]:
        return x @ rng.standard_normal((batch, n, n), dtype=x.dtype.type) / x.dtype.type(math.sqrt(n))

    queries, keys, values = linear(x), linear(x), linear(x)
    logits = queries @ keys.swapaxes(1, 2) / x.dtype.type(TAU0 * n)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    weights += np.eye(m, dtype=x.dtype) - x.dtype.type(1 / m)
    x = x.dtype.type(SKIP) * x + x.dtype.type(GAMMA) * (weights @ values)
    if not mlp:
        return x
    plus, minus = (x.dtype.type(slope) for slope in _slopes(n))
    z = linear(x)
    return x.dtype.type(SKIP) * x + x.dtype.type(GAMMA) * linear(np.maximum(plus * z, minus * z))


def torch_block(x: torch.Tensor, mlp: bool) -> torch.Tensor:
    """The same in PyTorch."""
    batch, m, n = x.shape

    def linear(x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x, torch.randn(batch, n, n, dtype=x.dtype)) / math.sqrt(n)

    queries, keys, values = linear(x), linear(x), linear(x)
    weights = torch.softmax(torch.bmm(queries, keys.transpose(1, 2)) / (TAU0 * n), -1)
    x = SKIP * x + GAMMA * torch.bmm(weights + torch.eye(m, dtype=x.dtype) - 1 / m, values)
    if not mlp:
        return x
    plus, minus = _slopes(n)
    z = linear(x)
    return SKIP * x + GAMMA * linear(torch.maximum(plus * z, minus * z))


def _linear_strength(mlp: bool) -> float:
    """κ of Σ = κ·Σ_lin + …: γ²(2 − γ²) of the attention, 2γ² of the MLP."""
    return GAMMA**2 * (2 - GAMMA**2) + (2 * GAMMA**2 if mlp else 0)


class TorchSDE(torch.nn.Module):
    """dV = b dt + √(κ/2) L(G + Gᵀ)Lᵀ + γ² (M V + V Mᵀ), V flattened to (batch, m²)."""

    noise_type, sde_type = "general", "ito"

    def __init__(self, m: int, mlp: bool, noise: Noise) -> None:
        super().__init__()
        self.m, self.mlp = m, mlp
        self.linear = math.sqrt(_linear_strength(mlp) / 2)
        self.centring = torch.eye(m, dtype=torch.float64) - 1 / m
        if noise == "factored":
            self.g_prod = self._times
        else:
            self.g = self._matrix if noise == "matrix" else self._root

    def f(self, _t: float, y: torch.Tensor) -> torch.Tensor:
        m = self.m
        v = y.view(-1, m, m)
        centred = self.centring @ v @ self.centring
        spread = (centred**2).sum((1, 2), keepdim=True) / m**2
        own, norm = centred.diagonal(dim1=1, dim2=2), v.diagonal(dim1=1, dim2=2)
        pull = torch.bmm(v, (own - own.mean(1, keepdim=True))[:, :, None])
        pulled = norm[:, :, None] * pull.transpose(1, 2) / (2 * m)
        drift = (spread * v + pulled + pulled.transpose(1, 2)) / TAU0**2
        if self.mlp:
            scale = (norm[:, :, None] * norm[:, None, :]).sqrt()
            rho = (v / scale).clamp(-1, 1)
            bend = (C_PLUS - C_MINUS) ** 2 / (2 * math.pi)
            drift = drift + bend * scale * ((1 - rho**2).sqrt() - rho * rho.arccos())
        return (GAMMA**2 * drift).reshape(len(y), -1)

    def _times(self, _t: float, y: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        m = self.m
        v = y.view(-1, m, m)
        factor = torch.linalg.cholesky(v)
        g = noise.view(-1, 2, m, m)
        linear = torch.bmm(torch.bmm(factor, g[:, 0]), factor.transpose(1, 2))
        logits = torch.bmm(torch.bmm(factor, g[:, 1]), factor.transpose(1, 2))
        moved = torch.bmm(logits - logits.mean(2, keepdim=True), v)
        half = self.linear * linear + GAMMA**2 / (TAU0 * m) * moved
        return (half + half.transpose(1, 2)).reshape(len(y), -1)

    def _matrix(self, _t: float, y: torch.Tensor) -> torch.Tensor:
        m = self.m
        v = y.view(-1, m, m)
        factor = torch.linalg.cholesky(v)
        moved = torch.bmm(v, factor - factor.mean(1, keepdim=True)) * (GAMMA**2 / (TAU0 * m))
        right = torch.stack([self.linear * factor, moved], 1)
        half = torch.einsum("sik,shjl->sijhkl", factor, right)
        return (half + half.transpose(1, 2)).reshape(len(y), m * m, 2 * m * m)

    def _root(self, t: float, y: torch.Tensor) -> torch.Tensor:
        matrix = self._matrix(t, y)
        values, vectors = torch.linalg.eigh(torch.bmm(matrix, matrix.transpose(1, 2)))
        return vectors * values.clamp_min(0).sqrt()[:, None, :]


def torchsde_paths(v0: Floats, time: float, steps: int, batch: int, seed: int, mlp: bool, noise: Noise) -> Floats:
    """Covariances at the end, (batch, m, m), by torchsde."""
    m = len(v0)
    width = m * m if noise == "root" else 2 * m * m
    y0 = torch.from_numpy(v0).reshape(1, -1).expand(batch, -1).contiguous()
    brownian = torchsde.BrownianInterval(0.0, time, size=(batch, width), dtype=torch.float64, entropy=seed)
    ends = torch.tensor([0.0, time], dtype=torch.float64)
    with torch.no_grad():
        out = torchsde.sdeint(TorchSDE(m, mlp, noise), y0, ends, bm=brownian, method="euler", dt=time / steps)
    return np.asarray(out[-1].reshape(batch, m, m).numpy())


def diffrax_solver(v0: Floats, time: float, steps: int, batch: int, mlp: bool, noise: Noise) -> Callable[[int], Floats]:
    """Return a compiled function of the seed that gives covariances at the end, (batch, m, m), by diffrax."""
    m = len(v0)
    linear = math.sqrt(_linear_strength(mlp) / 2)

    def drift(_t: Any, v: jax.Array, _args: None) -> jax.Array:
        centred = v - v.mean(0) - v.mean(1)[:, None] + v.mean()
        own, norm = jnp.diagonal(centred), jnp.diagonal(v)
        pulled = jnp.outer(norm, v @ (own - own.mean())) / (2 * m)
        total = ((centred**2).sum() / m**2 * v + pulled + pulled.T) / TAU0**2
        if mlp:
            scale = jnp.sqrt(jnp.outer(norm, norm))
            rho = jnp.clip(v / scale, -1, 1)
            bend = (C_PLUS - C_MINUS) ** 2 / (2 * math.pi)
            total += bend * scale * (jnp.sqrt(1 - rho**2) - rho * jnp.arccos(rho))
        return GAMMA**2 * total

    def factored(_t: Any, v: jax.Array, _args: None) -> FunctionLinearOperator:
        factor = jnp.linalg.cholesky(v)

        def times(g: jax.Array) -> jax.Array:
            logits = factor @ g[1] @ factor.T
            moved = (logits - logits.mean(1, keepdims=True)) @ v
            half = linear * factor @ g[0] @ factor.T + GAMMA**2 / (TAU0 * m) * moved
            return half + half.T

        return FunctionLinearOperator(times, jax.ShapeDtypeStruct((2, m, m), jnp.float64))

    def matrix(_t: Any, v: jax.Array, _args: None) -> jax.Array:
        factor = jnp.linalg.cholesky(v)
        moved = v @ (factor - factor.mean(0)) * (GAMMA**2 / (TAU0 * m))
        half = jnp.einsum("ik,hjl->ijhkl", factor, jnp.stack([linear * factor, moved]))
        return half + half.swapaxes(0, 1)

    def root(t: Any, v: jax.Array, args: None) -> jax.Array:
        columns = matrix(t, v, args).reshape(m * m, -1)
        values, vectors = jnp.linalg.eigh(columns @ columns.T)
        return (vectors * jnp.sqrt(jnp.maximum(values, 0))).reshape(m, m, m, m)

    diffusion, shape = {
        "factored": (factored, (2, m, m)),
        "matrix": (matrix, (2, m, m)),
        "root": (root, (m, m)),
    }[noise]

    def path(key: jax.Array) -> jax.Array:
        brownian = UnsafeBrownianPath(jax.ShapeDtypeStruct(shape, jnp.float64), key)
        control: Any = ControlTerm(diffusion, brownian)  # type: ignore[arg-type]
        found = diffeqsolve(
            MultiTerm(ODETerm(drift), control),
            Euler(),
            0.0,
            time,
            time / steps,
            jnp.asarray(v0),
            adjoint=DirectAdjoint(),
            max_steps=steps + 8,
        )
        return found.ys[-1]

    compiled = jax.jit(jax.vmap(path))
    return lambda seed: np.asarray(compiled(jax.random.split(jax.random.key(seed), batch)))
