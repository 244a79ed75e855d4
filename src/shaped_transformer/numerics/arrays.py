"""Type aliases of arrays, for annotations."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of numbers of any type."""

Floats = NDArray[np.float64]
"""An array in double precision."""
