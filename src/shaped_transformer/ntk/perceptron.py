"""A multilayer perceptron in the standard parametrisation, as the literature on tangent kernels has it."""

from ..design.activations import Activation, AnyActivation
from ..design.definition import Definition, PositiveFloat, PositiveInt, definition


@definition
class Perceptron(Definition):
    """L hidden layers x' = σ(W x), weights N(0, σ_w²/fan-in), and a linear output of the same law; no biases.

    A `Dense` layer of an `Architecture` normalises its activation. Here the variance of the weights is free: with ReLU
    and a = σ_w²/2 the norm of x is multiplied by √a per layer in the mean square. a < 1 is the ordered phase, a = 1 the
    critical point, a > 1 the chaotic phase [NTK].

    ```python
    mlp = st.ntk.Perceptron(width=50, depth=10, weight_variance=2.0)
    st.ntk.sample(mlp, np.eye(2, 50), samples=4, seed=0).shape  # (4, 2, 2)
    ```

    **Arguments:**

    - `width`: M, of the hidden layers.
    - `depth`: L, the number of hidden layers.
    - `activation`: σ, shaped (at width M) or plain; default ReLU.
    - `weight_variance`: σ_w², default 2, critical for ReLU.
    - `input_width`: number of coordinates of an input, default M.
    """

    width: PositiveInt
    depth: PositiveInt
    activation: AnyActivation = Activation("relu")
    weight_variance: PositiveFloat = 2.0
    input_width: PositiveInt | None = None

    @property
    def coordinates(self) -> int:
        """Number of coordinates of an input."""
        return self.width if self.input_width is None else self.input_width
