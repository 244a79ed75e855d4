"""The kernel of infinitely wide networks, for scikit-learn's Gaussian processes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.gaussian_process.kernels import Kernel

from ..design.architecture import Architecture
from ..inputs import as_matrix
from ..numerics.arrays import Floats
from . import infinite_width
from .networks import check_layers


class InfiniteWidthKernel(Kernel):
    """The covariance of a network's outputs as its width grows at fixed depth (theory §5 and §9).

    It is the prior of `Regressor` at infinite width, with prior scale 1: a Gaussian process, without correlations
    between outputs and without anything to learn about the network. Multiply it with a `ConstantKernel` for another
    scale. The depth and the layers count, and the width only in the slopes of shaped activations.

    ```python
    from sklearn.gaussian_process import GaussianProcessRegressor

    kernel = st.bayes.InfiniteWidthKernel(st.shaped_mlp(width=64, depth=2, activation=st.Activation("relu")))
    process = GaussianProcessRegressor(kernel, alpha=0.1).fit([[1.0, -1.0], [1.0, 1.0]], [0.5, -0.5])
    process.predict([[1.0, 0.0]])
    ```

    **Arguments:**

    - `architecture`: a network of `Dense` layers and residual `MLP`s, with or without norms.

    **Raises:** `InputError` when it is evaluated, for other layers.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def __call__(self, X: ArrayLike, Y: ArrayLike | None = None, eval_gradient: bool = False) -> Any:
        """Return the covariances of inputs X and Y.

        **Arguments:**

        - `X`, `Y`: inputs, (N, p) and (M, p); `None` (the default) means X.
        - `eval_gradient`: whether the gradient is returned too: it is empty, as there are no hyperparameters.

        **Returns:** (N, M), and if asked for an array (N, N, 0).
        """
        check_layers(self.architecture)
        x = as_matrix(X, "inputs X")
        k = infinite_width.covariance(
            self.architecture, x, None if Y is None else as_matrix(Y, "inputs Y", columns=x.shape[1])
        )
        return (k, np.empty((*k.shape, 0))) if eval_gradient else k

    def diag(self, X: ArrayLike) -> Floats:
        """Return the variances at inputs X, (N,)."""
        check_layers(self.architecture)
        return infinite_width.variance(self.architecture, as_matrix(X, "inputs X"))

    def is_stationary(self) -> bool:
        """Return false: the covariance depends on more than the difference of two inputs."""
        return False
