"""Time the three views against other libraries in one run: `make bench`, or `python benchmarks/speed.py [--quick]`.

Prints one table (Markdown) with times per sample and layer in microseconds and ratios, then the claims that rest on it
and the slopes of the scaling; writes `docs/results/speed.json` and draws `docs/speed.png` from it.
"""

# ruff: noqa: T201, E402
import timing

timing.one_core()  # before the libraries start their threads

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import peers
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from threadpoolctl import threadpool_limits

import shaped_transformer as st
from shaped_transformer.design.architecture import Architecture
from shaped_transformer.plotting.style import COLOURS
from shaped_transformer.views import chain, sampling, sde

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = ("attention only", "full block")
TOKENS, WIDTHS = (2, 4, 8, 16, 32, 128), (128, 1024)
SDE_TIME, SDE_STEPS = 0.05, 20
NOISES: tuple[peers.Noise, ...] = ("factored", "matrix", "root")


def architecture(block: str, n: int, depth: int) -> Architecture:
    """The block that is timed."""
    if block == "full block":
        return st.shaped_transformer(
            n, depth, gamma=peers.GAMMA, tau0=peers.TAU0, c_plus=peers.C_PLUS, c_minus=peers.C_MINUS
        )
    return st.shaped_attention_only(n, depth, gamma=peers.GAMMA, tau0=peers.TAU0)


def chain_walk(block: str, m: int, n: int, depth: int, sample_last: bool | None = None) -> chain.ChainWalk:
    """The chain from equicorrelated tokens."""
    factor = sampling.initial_factor(st.inputs.equicorrelated(m, 0.2), n)
    return chain.new_walk(architecture(block, n, depth), factor, sample_last)


def network_times(block: str, m: int, n: int, batches: tuple[int, ...]) -> dict[str, float]:
    """Real networks: the fastest batch and float of NumPy and of PyTorch."""
    rng = np.random.Generator(np.random.SFC64(0))
    full = block == "full block"
    found = {"NumPy": math.inf, "PyTorch": math.inf}
    for batch in batches:
        for dtype in (np.float32, np.float64):
            x = rng.standard_normal((batch, m, n)).astype(dtype)
            y = torch.from_numpy(x)
            numpy = timing.seconds(partial(peers.numpy_block, x, full, rng), 3) / batch
            pytorch = timing.seconds(partial(peers.torch_block, y, full), 3) / batch
            found["NumPy"] = min(found["NumPy"], timing.MICRO * numpy)
            found["PyTorch"] = min(found["PyTorch"], timing.MICRO * pytorch)
    return found


def sde_peer_times(block: str, m: int, noise: peers.Noise, batches: tuple[int, ...]) -> dict[str, float]:
    """One Euler–Maruyama step in torchsde and in diffrax, at the fastest batch."""
    v0 = st.inputs.equicorrelated(m, 0.2)
    found = {"torchsde": math.inf, "diffrax": math.inf}
    for batch in batches:
        solver = peers.diffrax_solver(v0, SDE_TIME, SDE_STEPS, batch, block == "full block", noise)
        jobs = {
            "torchsde": lambda b=batch: peers.torchsde_paths(
                v0, SDE_TIME, SDE_STEPS, b, 0, block == "full block", noise
            ),
            "diffrax": lambda f=solver: f(0),
        }
        for name, job in jobs.items():
            found[name] = min(found[name], timing.MICRO * timing.seconds(job, 3) / batch / SDE_STEPS)
    return found


def blas_time(block: str, m: int, n: int) -> float:
    """Microseconds that BLAS needs for the matrix products of one step of the chain (theory §3)."""
    rng = np.random.default_rng(0)
    a, wide = rng.standard_normal((m, m)), rng.standard_normal((m, n))
    square = timing.seconds(lambda: a @ a, 50)
    hidden = timing.seconds(lambda: a @ wide, 20) + timing.seconds(lambda: wide @ wide.T, 20)
    attention = 4 * square  # B·T, B·G, their product, A·B
    residual = 2 * square  # F·G, F·T
    return timing.MICRO * (attention + residual + (hidden + residual if block == "full block" else 0))


def row(block: str, m: int, n: int, normal: float, peers_of_sde: dict[str, Any]) -> dict[str, Any]:
    """Everything about one problem."""
    depth = 4 if m > 32 else 10 if block == "full block" else 100
    walk = chain_walk(block, m, n, depth)
    limit = architecture(block, n, n // 16)
    steps = max(100, sde.fewest_steps(limit, m))
    step = sde.new_walk(limit, sampling.initial_factor(st.inputs.equicorrelated(m, 0.2), m), steps, "wishart")
    small = (1, 4)
    return {
        "block": block,
        "tokens": m,
        "width": n,
        "chain": timing.walk_time(walk),
        "normals": normal * timing.numbers_per_step(walk),
        "plain": timing.plain_time(chain_walk(block, m, n, min(depth, 20), sample_last=False)),
        **network_times(block, m, n, small if n > 128 else (16, 64)),
        "sde": timing.walk_time(step),
        **peers_of_sde,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown: times in microseconds per sample and layer (step), and how many times the chain's."""
    lines = [
        "| block | m | n | chain | its normals in NumPy | plain chain | network, NumPy | network, PyTorch | SDE step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        cells = [f"{r['chain']:.3g}"]
        for name in ("normals", "plain", "NumPy", "PyTorch"):
            cells.append(f"{r[name]:.3g} ({r[name] / r['chain']:,.3g}×)")
        lines.append(f"| {r['block']} | {r['tokens']} | {r['width']} | {' | '.join(cells)} | {r['sde']:.3g} |")
    lines += [
        "",
        "| block | m | our SDE step | "
        + " | ".join(f"{p}, {n}" for p in ("torchsde", "diffrax") for n in NOISES)
        + " |",
    ]
    lines.append("|---" * 9 + "|")
    for r in rows:
        if r["width"] == WIDTHS[-1] and "torchsde factored" in r:
            cells = []
            for name in ("torchsde", "diffrax"):
                for noise in NOISES:
                    time = r.get(f"{name} {noise}")
                    cells.append(f"{time:.3g} ({time / r['sde']:,.3g}×)" if time else "—")
            lines.append(f"| {r['block']} | {r['tokens']} | {r['sde']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scaling(quick: bool) -> dict[str, dict[str, Any]]:
    """Seconds of whole calls of `chain.sample` against samples, depth, tokens and width; and threads."""
    found: dict[str, dict[str, Any]] = {}
    v0 = st.inputs.equicorrelated(8, 0.2)

    def call(m: int, n: int, depth: int, samples: int, block: str = "attention only", workers: int = 1) -> float:
        v = v0 if m == 8 else st.inputs.equicorrelated(m, 0.2)
        arch = architecture(block, n, depth)
        job = lambda: st.chain.sample(arch, v, samples, 0, record=1, workers=workers)  # noqa: E731
        return timing.seconds(job, 3)

    unit = 1 if quick else 4
    samples = [512 * unit * 2**k for k in range(5)]
    found["samples"] = {"x": samples, "chain": [call(8, 1024, 50, s) for s in samples]}
    depths = [25 * unit * 2**k for k in range(5)]
    found["depth"] = {"x": depths, "chain": [call(8, 1024, d, 1024) for d in depths]}
    tokens = [2, 4, 8, 16, 32, 64, 128]
    found["tokens"] = {"x": tokens}
    found["tokens"]["attention only"] = [
        call(m, 1024, 50, 2**16 // m**2 * 4 or 4) / (2**16 // m**2 * 4 or 4) / 50 for m in tokens
    ]
    found["tokens"]["full block"] = [
        call(m, 1024, 4, max(4, 2048 // m), "full block") / max(4, 2048 // m) / 4 for m in tokens
    ]
    widths = [128, 256, 512, 1024, 2048, 4096]
    found["width"] = {"x": widths}
    found["width"]["attention only"] = [call(8, n, 50, 2048) / 2048 / 50 for n in widths]
    found["width"]["full block"] = [call(8, n, 4, 1024, "full block") / 1024 / 4 for n in widths]
    return found


def _free() -> None:
    """Let this process use all cores again."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _draw(samples: int, workers: int) -> None:
    arch = architecture("attention only", 1024, 100)
    st.chain.sample(arch, st.inputs.equicorrelated(8, 0.2), samples, 0, record=1, workers=workers)


def cores() -> dict[str, Any]:
    """Samples per second against threads; and with as many processes, which share nothing but the machine."""
    _free()
    samples, count = 16384, os.cpu_count() or 1
    threads = [k for k in (1, 2, 4, 8, 16) if k <= count]
    times: dict[str, dict[int, list[float]]] = {
        "threads": {k: [] for k in threads},
        "processes": {k: [] for k in threads},
    }
    with ProcessPoolExecutor(threads[-1], mp_context=get_context("spawn"), initializer=_free) as pool:
        list(pool.map(partial(_draw, workers=1), [1024] * 4 * threads[-1]))  # start them, load the kernels
        for _ in range(9):  # in turn, so that a busy moment of the machine does not fall on one of them alone
            for k in threads:
                times["threads"][k].append(timing.seconds(partial(_draw, samples, k), 1))
                start = time.perf_counter()
                list(pool.map(partial(_draw, workers=1), [samples // k] * k))
                times["processes"][k].append(time.perf_counter() - start)
    return {"x": threads} | {how: [samples / float(np.median(t[k])) for k in threads] for how, t in times.items()}


def slope(x: list[float], y: list[float]) -> float:
    """Exponent of the power law through the points."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def claims(data: dict[str, Any]) -> str:
    """What the project promises, with what was measured."""
    rows = {(r["block"], r["tokens"], r["width"]): r for r in data["rows"]}
    att, full = rows["attention only", 8, 1024], rows["full block", 8, 1024]
    s, c, big = data["scaling"], data["cores"], data["large"]
    lines = [
        f"chain / its normals in NumPy, attention only, m = 8: {att['chain'] / att['normals']:.2f} (at most 1.5)",
        f"plain chain / chain, attention only, m = 8: {att['plain'] / att['chain']:.1f} (at least 4)",
    ]
    if len(c["x"]) > 1:
        threads, processes = (c[how][1] / c["threads"][0] for how in ("threads", "processes"))
        lines.append(
            f"2 threads / 1: {threads:.2f} (at least 1.8); 2 processes / 1, the machine's limit: {processes:.2f}"
        )
    for name, r, least in (("attention only", att, 5000), ("full block", full, 300)):
        network = min(r["NumPy"], r["PyTorch"])
        lines.append(
            f"fastest network / chain, {name}, m = 8, n = 1024: {network / r['chain']:,.0f} (at least {least:,})"
        )
    for m, least in ((4, 20), (8, 100)):
        r = rows["attention only", m, 1024]
        for noise in NOISES:
            ratios = ", ".join(f"{p} {r[f'{p} {noise}'] / r['sde']:.3g}" for p in ("torchsde", "diffrax"))
            lines.append(f"their SDE step / ours, m = {m}, {noise} noise: {ratios} (aim {least})")
    for block in ("attention only", "full block"):
        lines.append(f"chain / its products in BLAS, {block}, m = 128, n = 1024: {big[block]:.2f} (at most 3)")
    lines += [
        f"time ~ samples^{slope(s['samples']['x'], s['samples']['chain']):.2f}, "
        f"depth^{slope(s['depth']['x'], s['depth']['chain']):.2f}",
        f"attention only: m^{slope(s['tokens']['x'][2:], s['tokens']['attention only'][2:]):.2f} (m ≥ 8), "
        f"n^{slope(s['width']['x'], s['width']['attention only']):.2f}",
        f"full block: m^{slope(s['tokens']['x'][2:], s['tokens']['full block'][2:]):.2f} (m ≥ 8), "
        f"n^{slope(s['width']['x'], s['width']['full block']):.2f}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def plot(data: dict[str, Any]) -> Figure:
    """Draw the scaling."""
    figure, axes = plt.subplots(1, 5, figsize=(16, 3.4), layout="constrained")
    labels = {
        "samples": ("samples", "seconds"),
        "depth": ("depth d", "seconds"),
        "tokens": ("tokens m", "seconds per sample and layer"),
        "width": ("width n", "seconds per sample and layer"),
    }
    for axis, (name, (x, y)) in zip(axes, labels.items(), strict=False):
        lines = {k: v for k, v in data["scaling"][name].items() if k != "x"}
        xs = data["scaling"][name]["x"]
        for (label, times), style in zip(lines.items(), ("o-", "s--"), strict=False):
            fit = slope(xs[2:] if name == "tokens" else xs, times[2:] if name == "tokens" else times)
            axis.loglog(xs, times, style, color=COLOURS["chain"], label=f"{label}: slope {fit:.2f}", markersize=4)
        axis.set(xlabel=x, ylabel=y)
        for side in (axis.xaxis, axis.yaxis):
            side.set_minor_formatter(NullFormatter())
        if name in ("tokens", "width"):
            axis.set_xticks(xs, [str(value) for value in xs])
        axis.legend(fontsize=8)
    threads = data["cores"]
    for how, mark in (("threads", "o-"), ("processes", "s--")):
        axes[-1].plot(threads["x"], threads[how], mark, color=COLOURS["chain"], label=how, markersize=4)
    axes[-1].plot(threads["x"], [threads["threads"][0] * k for k in threads["x"]], ":", color="grey", label="ideal")
    axes[-1].set(xlabel="cores", ylabel="samples per second (100 layers)", ylim=(0, None), xticks=threads["x"])
    axes[-1].legend(fontsize=8)
    figure.suptitle("Exact chain, m = 8, n = 1024 where not varied")
    return figure


def measure(quick: bool) -> dict[str, Any]:
    """Measure everything."""
    tokens = (4, 8) if quick else TOKENS
    rows = []
    normal = timing.numpy_normal_time()
    for block in BLOCKS:
        for m in tokens:
            peer: dict[str, float] = {}
            for noise in NOISES if m <= 8 else NOISES[:1] if m <= 32 else ():
                batches = (64,) if noise == "root" else (256, 1024) if m <= 8 else (64,)
                times = sde_peer_times(block, m, noise, batches)
                peer |= {f"{name} {noise}": time for name, time in times.items()}
            for n in (1024,) if quick else WIDTHS:
                rows.append(row(block, m, n, normal, peer))
                print(rows[-1]["block"], f"m = {m}, n = {n}: done", flush=True)
    large = {}
    for block in BLOCKS:
        large[block] = timing.walk_time(chain_walk(block, 128, 1024, 4)) / blas_time(block, 128, 1024)
    return {"machine": timing.machine(), "rows": rows, "large": large, "scaling": scaling(quick), "cores": cores()}


def main() -> None:
    """Measure, print, save and plot; `--quick` (two minutes) only prints, `--from` only plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="m = 4 and 8, n = 1024 only; nothing is saved")
    parser.add_argument("--from", dest="source", type=Path, help="print and plot this file again")
    arguments = parser.parse_args()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        data = json.loads(arguments.source.read_text()) if arguments.source else measure(arguments.quick)
    print(
        f"\n{data['machine']}; one core; median of repeats; µs per sample and layer (step), (× the chain's or ours)\n"
    )
    print(table(data["rows"]))
    print()
    print(claims(data))
    if not arguments.quick:
        (DOCS / "results").mkdir(exist_ok=True)
        (DOCS / "results" / "speed.json").write_text(json.dumps(data, indent=1) + "\n")
        plot(data).savefig(DOCS / "speed.png", dpi=120)


if __name__ == "__main__":
    main()
