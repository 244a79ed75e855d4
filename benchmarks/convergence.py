"""Plot how the exact chain tends to the SDE as the width grows: `python benchmarks/convergence.py`."""

from pathlib import Path

import shaped_transformer as st
from shaped_transformer.figures import convergence


def main() -> None:
    """Compute and draw `docs/convergence.png`, and print the distances."""
    arch = st.shaped_transformer(64, 32, gamma=0.7, tau0=4.0, c_plus=0.0, c_minus=-1.5)
    v0 = st.inputs.equicorrelated(4, 0.2)
    data = convergence.compute(arch, v0, (4, 8, 16, 32, 64, 128), samples=40_000, seed=0, steps=200)
    print(data["distance"].to_pandas().round(4).to_string())  # noqa: T201
    print(f"noise (5 %): {float(data['noise']):.4f}")  # noqa: T201
    convergence.draw(data).savefig(Path(__file__).parents[1] / "docs" / "convergence.png", dpi=120)


if __name__ == "__main__":
    main()
