"""Build a model without memory for its weights, and record how its own code initialises each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...errors import InputError
from .events import Reference, Region, sources
from .interpretation import law_of
from .law import NEVER, Law
from .recorder import Disguise, Recorder, given, to_meta_in_place
from .replay import NO_CONTENT, Draw, Replay

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class Recording:
    """How one parameter or buffer came to its values: the operations, in order, and what they depend on.

    ```python
    import torch
    from shaped_transformer.weightless.recording.record import record

    model, recordings = record(lambda: torch.nn.Linear(8192, 8192), torch.float32)
    print(recordings["weight"].law(model.weight.shape))  # uniform on [-0.011, 0.011]
    ```
    """

    reference: Reference = field(repr=False)

    @property
    def sources(self) -> frozenset[int]:
        """Numbers of the random operations behind the values: what shares none of them is independent."""
        return sources(self.reference.state)

    def law(self, shape: torch.Size | tuple[int, ...]) -> Law:
        """Return the distribution of the entries.

        **Arguments:**

        - `shape`: shape of the parameter.

        **Returns:** the law; of kind `"other"`, with a reason, where it is none that is known by name.
        """
        return law_of(self.reference, tuple(shape))

    def draw(
        self,
        shape: torch.Size | tuple[int, ...],
        dtype: torch.dtype,
        normals: Draw,
        uniforms: Draw,
        generator: torch.Generator,
    ) -> Tensor:
        """Draw the values by repeating the recorded operations on real memory; exact whatever the distribution.

        **Arguments:**

        - `shape`, `dtype`: of the parameter.
        - `normals`, `uniforms`: shape → standard normals, and numbers uniform on [0, 1).
        - `generator`: for every other random operation; its device is that of the result.

        **Returns:** a tensor of that shape and dtype.

        **Raises:** `InputError` for a parameter that is never initialised, or by an operation that cannot be repeated.
        """
        values = draw_jointly([self], normals, uniforms, generator)[0]
        return values.reshape(tuple(shape)).to(dtype)


def draw_jointly(
    recordings: Sequence[Recording], normals: Draw, uniforms: Draw, generator: torch.Generator
) -> list[Tensor]:
    """Draw several parameters that share `sources`, such as copies of one layer, from their joint distribution.

    **Arguments:**

    - `recordings`: of the parameters.
    - `normals`, `uniforms`, `generator`: as in `Recording.draw`.

    **Returns:** their values, each in the shape and dtype in which the model has it.

    **Raises:** `InputError` as `Recording.draw`.
    """
    if any(recording.reference.state.name in NO_CONTENT for recording in recordings):
        raise InputError(f"the parameter is {NEVER}: fill it in the model's code, with a function of torch.nn.init")
    return Replay(normals, uniforms, generator).tensors([recording.reference for recording in recordings])


def record(factory: Callable[[], nn.Module], dtype: torch.dtype) -> tuple[nn.Module, dict[str, Recording]]:
    """Build a model with its weights on `meta`, and record how its code initialises them.

    Buffers and small constants are real. Random numbers are drawn for none of the weights; the global generator of
    PyTorch and the default dtype are as before.

    **Arguments:**

    - `factory`: builds the model, such as `lambda: AutoModelForCausalLM.from_config(config)`.
    - `dtype`: default dtype while it runs.

    **Returns:** the model, and a recording for each name of `model.named_parameters()` and for buffers on `meta`. A
    parameter that is real has the values it shows.

    **Raises:** `InputError` if `factory` cannot be called or makes no module, or if it reads the value of a weight.
    Exceptions of the factory pass unchanged.
    """
    if not callable(factory) or isinstance(factory, nn.Module):
        raise InputError(
            "factory must be a function without arguments that builds a module, such as lambda: MyModel(width=4096) "
            f"(got a {type(factory).__name__})"
        )
    if dtype not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype!r}")
    recorder, before = Recorder(), torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.random.fork_rng(devices=[]), Disguise(recorder), recorder:
            model = factory()
    finally:
        torch.set_default_dtype(before)
    if not isinstance(model, nn.Module):
        raise InputError(f"factory must return a torch.nn.Module, got {type(model).__name__}: return the model itself")
    recordings = {name: _recording(recorder, name, parameter) for name, parameter in model.named_parameters()}
    buffers = {name: _recording(recorder, name, b) for name, b in model.named_buffers() if b.is_meta}
    return model, recordings | buffers


def _recording(recorder: Recorder, name: str, tensor: Tensor) -> Recording:
    """Return the recording of a tensor; one that was filled with random numbers gives up its memory."""
    if nn.parameter.is_lazy(tensor):
        raise InputError(f"parameter {name} has no shape yet: give lazy modules their sizes")
    if tensor.layout != torch.strided:
        raise InputError(f"parameter {name} is not dense: its layout is {tensor.layout}")
    tracked = recorder.tracked(tensor)
    if tracked is None:
        return Recording(Reference(given(tensor), Region.of(tensor)))
    recording = Recording(Reference(tracked.state, Region.of(tensor)))
    if not tensor.is_meta:
        to_meta_in_place(tensor)
    return recording
