"""Statistics of samples: observables of V, estimates with intervals, the verdict.

```python
chain = st.chain.sample(st.deep_linear(32, 8), st.inputs.equicorrelated(3, 0.2), samples=50, seed=0)
print(st.statistics.median(chain.effective_rank()[:, -1]))
```
"""

from .analysis.verdict import Verdict, verdict
from .estimates import Distance, Estimate, median, quantiles, share, two_sample
from .observables import (
    OBSERVABLES,
    Observable,
    correlation,
    effective_rank,
    mean_absolute_correlation,
    mean_token_norm,
)

__all__ = [
    "OBSERVABLES",
    "Distance",
    "Estimate",
    "Observable",
    "Verdict",
    "correlation",
    "effective_rank",
    "mean_absolute_correlation",
    "mean_token_norm",
    "median",
    "quantiles",
    "share",
    "two_sample",
    "verdict",
]


def __dir__() -> list[str]:
    return sorted(__all__)
