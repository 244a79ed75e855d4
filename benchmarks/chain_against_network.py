"""Time the exact chain against real networks, per draw, in one run: `python benchmarks/chain_against_network.py`.

Both sides get one thread and draw whole blocks of paths through the same layers. The network is timed in both floats
and at several batch sizes, and the fastest counts.
"""

import platform
import statistics
import time
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

import shaped_transformer as st
from shaped_transformer.views.chain import ChainWalk
from shaped_transformer.views.network import NetworkWalk
from shaped_transformer.views.sampling import Walk, draw_block, initial_factor

WIDTH, TOKENS, REPEATS = 1024, 8, 5
LAYERS = {"network": 2, "chain": 40}


def seconds_per_draw_and_layer(walk: Walk) -> float:
    """Median over repeats of the time of one block, per sample and layer."""
    times = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        draw_block(walk, repeat, (walk.steps,), (0.0, 1e8), 0)
        times.append((time.perf_counter() - start) / walk.size / walk.steps)
    return statistics.median(times[1:])


def main() -> None:
    """Print the table."""
    v0 = st.inputs.from_text(max_tokens=TOKENS)
    factor = initial_factor(v0, WIDTH)
    presets = {"attention only": st.shaped_attention_only, "full block": st.shaped_transformer}
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, one thread")  # noqa: T201
    print(f"n = {WIDTH}, m = {TOKENS}; median of {REPEATS} repeats, time per draw and layer\n")  # noqa: T201
    print("| block | network, best batch | chain | ratio |\n|---|---|---|---|")  # noqa: T201
    for name, preset in presets.items():
        arch = preset(WIDTH, LAYERS["network"])
        tried = {
            (dtype, size): seconds_per_draw_and_layer(NetworkWalk(arch, factor, size, dtype))
            for dtype in ("float32", "float64")
            for size in (1, 2, 4, 8)
        }
        (dtype, size), network = min(tried.items(), key=lambda item: item[1])
        deeper = replace(arch, depth=LAYERS["chain"])
        walk = ChainWalk(deeper, factor, st.chain.block_size(deeper, TOKENS))
        chain = seconds_per_draw_and_layer(walk)
        best = f"{1e3 * network:.1f} ms ({dtype}, batch {size})"
        print(f"| {name} | {best} | {1e6 * chain:.1f} µs | {network / chain:,.0f} |")  # noqa: T201


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
