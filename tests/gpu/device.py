"""The GPU that these tests run on, and errors beside exact values. Without a GPU, importing this skips the file."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

if not torch.cuda.is_available():
    pytest.skip("these tests need a GPU that CUDA can use", allow_module_level=True)

torch.set_float32_matmul_precision("highest")  # the default: no TF32, whose rounding is a thousand times larger
DEVICE = "cuda"


def largest_error(found: Any, exact: Any) -> float:
    """Return the largest absolute difference from values in float64 on the CPU."""
    return float((found.detach().cpu().double() - exact).abs().max())


def assert_as_exact(found: Any, usual: Any, exact: Any, times: float = 8.0) -> None:
    """Assert that values are about as near to the exact ones as the usual way to compute them in float32.

    **Arguments:**

    - `found`: the values.
    - `usual`: the same, computed the usual way in float32.
    - `exact`: the same in float64 on the CPU.
    - `times`: how many times the largest error of `usual` is allowed, and of the rounding of single numbers, for other
      orders of sums round differently; default 8.
    """
    assert found.isfinite().all()
    unit = torch.finfo(torch.float32).eps * float(exact.abs().max())
    error, allowed = largest_error(found, exact), times * (largest_error(usual, exact) + unit)
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"
