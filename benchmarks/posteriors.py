# ruff: noqa: T201, E402
"""Bayesian regression: how far draws of the prior reach, what they cost, and tempering beside them.

The data are scikit-learn's diabetes, standardised, with a constant feature; noise 0.5, prior scale 1.
"""

import time

import numpy as np
import timing

timing.one_core()

import shaped_transformer as st

NETWORKS = ((128, 16), (128, 4), (64, 2), (16, 2))
"""Width and depth."""

INPUTS = (20, 60, 100, 200)
"""Numbers of training inputs."""


def data(count: int) -> tuple[np.ndarray, ...]:
    """Return training inputs and targets, and twenty test points with theirs."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x = np.hstack([(x - x.mean(0)) / x.std(0), np.ones((len(x), 1))])
    y = (y - y.mean()) / y.std()
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:count], order[200:220]
    return x[train], y[train], x[test], y[test]


def architectures(width: int, depth: int) -> dict[str, st.Architecture]:
    """Return perceptrons of three kinds."""
    return {
        "ReLU": st.shaped_mlp(width, depth, activation=st.Activation("relu")),
        "shaped ReLU": st.shaped_mlp(width, depth),
        "linear": st.deep_linear(width, depth),
    }


def reach(samples: int) -> None:
    """Print the effective share of draws, and the milliseconds of one."""
    print("| width | depth | activation | " + " | ".join(f"{count} inputs" for count in INPUTS) + " | ms per draw |")
    print("| --- " * (4 + len(INPUTS)) + "|")
    for width, depth in NETWORKS:
        for name, arch in architectures(width, depth).items():
            shares = []
            for count in INPUTS:
                x, y, _, _ = data(count)
                model = st.bayes.Regressor(arch, noise=0.5, samples=samples, min_effective_samples=0, workers=1)
                start = time.perf_counter()
                model.fit(x, y)
                taken = (time.perf_counter() - start) / samples
                shares.append(f"{model.effective_sample_size_ / samples:.1%}".replace("%", " %"))
            print(f"| {width} | {depth} | {name} | {' | '.join(shares)} | {1000 * taken:.2g} |", flush=True)


def temper() -> None:
    """Print evidence, predictive density and seconds of tempering, beside as many draws as it takes."""
    print(
        "\n| width | depth | way | draws | effective | log evidence | log density of a test point | seconds of `fit` |"
    )
    print("| --- " * 8 + "|")
    x, y, tests, truth = data(60)
    for depth, draws in ((4, 30_000), (8, 150_000)):
        for way, samples, least in (("tempering", 2048, None), ("weights", draws, 0)):
            arch = architectures(64, depth)["ReLU"]
            model = st.bayes.Regressor(arch, noise=0.5, samples=samples, min_effective_samples=least, workers=1)
            start = time.perf_counter()
            model.fit(x, y)
            taken = time.perf_counter() - start
            density = model.log_predictive_density(tests, truth).mean()
            evidence = f"{model.log_evidence_:.2f} ± {model.log_evidence_error_:.2f}"
            effective = f"{model.effective_sample_size_:.0f}"
            cells = (64, depth, way, f"{samples:,}", effective, evidence, f"{density:.3f}", f"{taken:.0f}")
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    print(f"{timing.machine()}, one core\n")
    reach(1000)
    temper()
