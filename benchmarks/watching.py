# ruff: noqa: T201
"""What watching a run costs: a training step with the watch on against one without, in turn, in processor time.

python benchmarks/watching.py prints the table in docs/training.md.
"""

import time

import numpy as np
import torch

from shaped_transformer.training import Recipe
from shaped_transformer.training.task import build, prepare
from shaped_transformer.training.watch import watch_blocks

DEPTHS, ROUNDS, WARM = (6, 24, 64), 10, 2


def main() -> None:
    """Print the table."""
    print("| blocks | a watched step over a plain one | in all, at one in 50 |")
    print("|---|---|---|")
    for depth in DEPTHS:
        recipe = Recipe(task="causal-lm", depth=depth)
        task = prepare(recipe)
        model = build(recipe, task)
        batch = torch.utils.data.default_collate([task.train[i] for i in range(recipe.batch)])
        plain, watching = [], []
        for _ in range(ROUNDS):
            times = [time.process_time()]
            model(**batch).loss.backward()
            times.append(time.process_time())
            with watch_blocks(model):
                model(**batch).loss.backward()
            times.append(time.process_time())
            plain.append(times[1] - times[0])
            watching.append(times[2] - times[1])
        ratio = float(np.median(watching[WARM:]) / np.median(plain[WARM:]))
        print(f"| {depth} | {ratio:.3f} | {1 + (ratio - 1) / recipe.watch:.4f} |")


if __name__ == "__main__":
    main()
