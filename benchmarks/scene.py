"""One scene for every contestant of a benchmark: an image, proposals, and how to time in turn."""

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, as network input: float32 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros([height, width, 3])
    for cell in (8, 32, 128):
        coarse = rng.normal(size=[-(-height // cell), -(-width // cell), 3])
        total += coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return (total / total.std()).astype(np.float32)


def proposals(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Boxes float32 [count, (y1, x1, y2, x2)] inside the image.

    Sides are log-uniform from 16 pixels to 0.8 of the short edge, height / width from 1/2 to 2.
    """
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(16), np.log(0.8 * min(height, width)), count))
    root = np.sqrt(np.exp(rng.uniform(np.log(0.5), np.log(2.0), count)))
    size = np.clip(np.stack([side * root, side / root], 1), 8, [height - 1, width - 1])
    corner = rng.uniform(0, [height, width] - size)
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def time_in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function, A B A B ..., after one call of each that does not count."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    """Median, to a tenth of a millisecond."""
    return round(statistics.median(values), 4)


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
