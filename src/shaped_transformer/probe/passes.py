"""One pass of a model, observed: `run`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..checks import check_count, check_seed
from ..errors import InputError
from ..weightless import gradient_norms
from ..weightless.parameters.tensor import WeightlessTensor
from .attention import eager
from .layers import find_blocks
from .observation import Observation, Seen, observed
from .result import ProbeResult, dataset
from .tokens import Tokens, first_tensor, padding_masks

TOKENS = 512
"""Number of tokens of a sequence above which a sample of them stands for all."""

Loss = Callable[[Any], Tensor]
"""A function of a model's output."""

MISTAKES = (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError)
"""Exceptions by which models say that they do not take a batch."""


def run(
    model: nn.Module,
    batch: Any,
    *,
    layers: str | Sequence[str] | None = None,
    backward: bool = True,
    loss: Loss | None = None,
    attention: bool = False,
    max_tokens: int = TOKENS,
    batch_first: bool = True,
    seed: int = 0,
) -> ProbeResult:
    """Return what a model does to its tokens in one pass, layer by layer.

    The model is in evaluation mode meanwhile, so that dropout is off, and comes back as it was: mode, hooks, gradients
    and the states of random generators, also after an error. Each layer is reduced to its Gram matrix on the fly, so
    that memory grows with the number of layers times the square of the number of tokens, whatever the width.

    ```python
    import torch
    model = st.nn.ShapedTransformer(width=64, depth=3, heads=4)
    result = st.probe.run(model, torch.randn(2, 8, 64))
    result.mean("effective_rank")  # of the input and of three layers
    ```

    **Arguments:**

    - `model`: any PyTorch module, such as a Hugging Face model, trained or not, or a weightless one.
    - `batch`: what it takes: a tensor, a tuple of arguments, or a dictionary of keyword arguments. Tokens that
      `attention_mask` calls padding are left out.
    - `layers`: modules whose outputs are the layers, as a glob of their names such as `"encoder.layer.*"`, or several.
      Default: the blocks of the residual stream, found by themselves.
    - `backward`: whether to measure gradients too, default yes.
    - `loss`: function of the output whose gradient is measured. Default: the output's own `loss` where it has one (give
      `labels` in the batch), else a fixed random combination of the numbers in its first tensor, Σ cᵢyᵢ/√N with
      standard normal cᵢ.
    - `attention`: whether to measure attention weights. A Hugging Face model then computes its attention the eager way
      during the probe, which costs memory.
    - `max_tokens`: longer sequences are represented by a seeded sample of so many tokens, default 512.
    - `batch_first`: whether tensors are (batch, tokens, width), default, and not (tokens, batch, width).
    - `seed`: of that sample.

    **Raises:** `InputError` where no layer is found, an output is no tensor of tokens, the model does not take the
    batch, or hooks do not run.
    """
    model = _observable(model)
    check_batch(batch)
    blocks = find_blocks(model, layers)
    tokens = Tokens(
        padding_masks(batch),
        check_count(max_tokens, "max_tokens"),
        check_seed(seed),
        batch_first=batch_first,
        decoder=bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False)),
    )
    with ExitStack() as stack:
        stack.enter_context(unchanged(model))
        by_weights = attention and stack.enter_context(eager(model))
        seen = stack.enter_context(observed(model, blocks, Observation(tokens), attention=attention))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad() if backward else torch.no_grad())
        value, weights = _passes(model, batch, loss, seen, backward=backward)
    words = "eager" if by_weights else "the model's own"
    if attention and not seen.attention:
        words += ", which returns no weights"
    return _result(model, seen.layers, seen.attention, weights, value, tokens, words=words, seed=seed)


def check_batch(batch: Any) -> None:
    """Check that a batch is not made of plain Python values alone, such as lists of numbers.

    **Raises:** `InputError` where it is.
    """
    if _is_plain(batch):
        inside = _parts(batch)
        kinds = f" of {type(inside[0]).__name__}" if inside else ""
        raise InputError(
            f"the model does not take this batch ({type(batch).__name__}{kinds}): give a tensor, a tuple of arguments "
            "or a dictionary of keyword arguments; pad sequences to one tensor (batch, tokens)"
        )


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but text, numbers and NumPy arrays; an empty container may be no mistake."""
    if parts := _parts(value):
        return all(map(_is_plain, parts))
    return value is None or isinstance(value, (str, bytes, int, float, np.ndarray))


def _parts(value: Any) -> list[Any]:
    """Return what a container holds."""
    return (
        list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, (tuple, list)) else []
    )


def _passes(
    model: nn.Module, batch: Any, loss: Loss | None, seen: Any, *, backward: bool
) -> tuple[float | None, dict[str, float]]:
    """Run the passes; return the loss and the norms of the parameters' gradients."""
    with clear("the model does not take this batch"):
        output = call(model, _with_gradient(batch) if backward else batch)
    seen.end_forward()
    if not seen.layers:
        raise InputError("no observed layer was called: choose other layers with layers=")
    if not backward:
        return None, {}
    with clear("no loss can be computed from the model's output"):
        value = loss_of(output, loss)
    del output
    if not value.requires_grad:
        return float(value), {}
    with clear("the backward pass fails"):
        value.backward()
    return float(value.detach()), norms_of_gradients(model)


@contextmanager
def clear(what: str) -> Iterator[None]:
    """Turn the exceptions of a model into one clear line that begins with `what`."""
    try:
        yield
    except InputError:
        raise
    except MISTAKES as error:
        line = (str(error).strip().splitlines() or ["no message"])[0]
        raise InputError(f"{what}: {type(error).__name__}: {line}") from error


def call(model: nn.Module, batch: Any) -> Any:
    """Return the model's output for a batch."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _with_gradient(batch: Any) -> Any:
    """Return a batch whose floating tensors, but masks, have a gradient, so that one comes to the first layer.

    They are copies, since models may work in place, and the caller's tensors must not change.
    """
    if isinstance(batch, Tensor):
        return batch.detach().requires_grad_().clone() if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {name: one if "mask" in str(name) else _with_gradient(one) for name, one in batch.items()}
    return [_with_gradient(one) for one in batch] if isinstance(batch, (tuple, list)) else batch


def loss_of(output: Any, loss: Loss | None) -> Tensor:
    """Return the number whose gradient is measured.

    **Raises:** `InputError` where the output has no floating tensor, or `loss` is no function or gives
    no single number.
    """
    if loss is not None:
        if not callable(loss):
            raise InputError(f"loss must be a function of the model's output (got {loss!r:.60})")
        value = loss(output)
    elif isinstance(getattr(output, "loss", None), Tensor):
        value = output.loss
    else:
        first = first_tensor(output)
        if first is None:
            raise InputError("the model returns no floating-point tensor: give loss=, a function of its output")
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(first.shape, generator=generator, dtype=torch.float32).to(first.device, first.dtype)
        value = (first * direction).sum() / math.sqrt(first.numel())
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise InputError(f"the loss must be a tensor with one number (got {value!r:.60})")
    return value


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards give it back its modes, gradients and the generators' states."""
    modes = [(module, module.training) for module in model.modules()]
    weightless = any(isinstance(p, WeightlessTensor) for p in model.parameters())
    gradients = [] if weightless else [(p, p.grad) for p in model.parameters()]
    devices = {p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_meta
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(sorted(devices)):
        try:
            torch.backends.mha.set_fastpath_enabled(False)  # it would hide the layers of nn.TransformerEncoder
            model.eval()
            for parameter, _ in gradients:
                parameter.grad = None
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for module, name, buffer, values in buffers:
                    module._buffers[name] = buffer
                    if not torch.equal(buffer, values):
                        buffer.copy_(values)
            torch.backends.mha.set_fastpath_enabled(fast)


def _observable(model: Any) -> nn.Module:
    """Return the module to observe.

    **Raises:** `InputError` for what is no module, or where hooks would not run.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a PyTorch module (got {type(model).__name__})")
    original = getattr(model, "_orig_mod", None)  # of torch.compile: the same parameters
    model = original if isinstance(original, nn.Module) else model
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        raise InputError("the model was compiled in place, and hooks do not run then: probe it before model.compile()")
    flat = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
    if flat or any(isinstance(p, DTensor) for p in model.parameters()):
        raise InputError("the model is sharded over processes (FSDP): probe it before it is wrapped")
    if any(p.is_meta for p in model.parameters() if not isinstance(p, WeightlessTensor)):
        raise InputError(
            "the model has no weights (it is on the meta device): use st.probe.expected with its configuration"
        )
    return model


def norms_of_gradients(model: nn.Module) -> dict[str, float]:
    """Return the norm of the gradient of each parameter that has one, real or not."""
    if any(isinstance(p, WeightlessTensor) for p in model.parameters()):
        return dict(gradient_norms(model))
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norms = {name: torch.linalg.vector_norm(grad.detach().float(), dtype=torch.float64) for name, grad in named}
    return {name: float(norm) for name, norm in norms.items()}


def _result(
    model: nn.Module,
    layers: dict[str, Seen],
    attention: dict[str, Any],
    weights: dict[str, float],
    loss: float | None,
    tokens: Tokens,
    *,
    words: str,
    seed: int,
) -> ProbeResult:
    """Return the result, with no infinite or undefined number in it."""
    broken = next((name for name, seen in layers.items() if not seen.finite), None)
    finite = dict(list(layers.items())[: list(layers).index(broken)]) if broken is not None else layers
    if not finite:
        raise InputError(f"{broken}: tokens are infinite or undefined from the start: look at the batch")
    without = _without_gradient(finite)
    gradient = _gradient_state(finite, without, weights, loss, broken)
    there = gradient == "measured"
    settings = {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss if loss is not None and np.isfinite(loss) else None,
        "not_finite": broken,
        "gradient": gradient,
        "no_gradient": without if there else {},
        "max_tokens": tokens.limit,
        "sampled": tokens.sampled,
        "seed": seed,
        "attention": words,
    }
    kept = {name: norm for name, norm in weights.items() if there}
    gradients = {name: seen.gradient for name, seen in finite.items() if there and name not in without}
    return ProbeResult(dataset(finite, attention if broken is None else {}, kept, gradients), settings)


def _without_gradient(layers: dict[str, Seen]) -> dict[str, str]:
    """Return the layers whose gradient is not known, and why."""
    overwritten = {
        name: f"{name} is overwritten in place, which hides its gradient"
        for name, seen in layers.items()
        if seen.overwritten
    }
    missing = {name: f"no gradient comes to {name}" for name, seen in layers.items() if not seen.gradient}
    return missing | overwritten


def _gradient_state(
    layers: dict[str, Seen], without: dict[str, str], weights: dict[str, float], loss: float | None, broken: str | None
) -> str:
    """Return "measured", or why no layer has a gradient."""
    if loss is None:
        return "not asked for"
    if broken is not None or not np.isfinite(loss):
        return "the loss is infinite or undefined"
    if len(without) == len(layers):
        return next(iter(without.values()))
    bad = [name for name, seen in layers.items() if not all(np.isfinite(one).all() for one in seen.gradient)]
    if bad or not all(map(np.isfinite, weights.values())):
        return f"the gradient is infinite or undefined, first at {bad[-1] if bad else 'a weight'}"
    return "measured"
