"""One scene for every contestant of a benchmark: an image, objects with masks, proposals.

NumPy only, so that every contestant's environment has it. Boxes are float32 [n, (y1, x1, y2, x2)]
in pixels.
"""

import numpy as np

PROPOSALS = 1000  # per image, which every network looks at instead of its own
OBJECTS = 20  # per image, in training
CLASSES = 91  # with background


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, as network input: float32 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    total = np.zeros([height, width, 3])
    for cell in (8, 32, 128):
        coarse = rng.normal(size=[-(-height // cell), -(-width // cell), 3])
        total += coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return (total / total.std()).astype(np.float32)


def boxes(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Boxes inside the image.

    Sides are log-uniform from 16 pixels to 0.8 of the short edge, height / width from 1/2 to 2.
    """
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(16), np.log(0.8 * min(height, width)), count))
    root = np.sqrt(np.exp(rng.uniform(np.log(0.5), np.log(2.0), count)))
    size = np.clip(np.stack([side * root, side / root], 1), 8, [height - 1, width - 1])
    corner = rng.uniform(0, [height, width] - size)
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def objects(height: int, width: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [count, 4] and classes int64 [count] in 1..classes-1 of what is in the image."""
    drawn = np.random.default_rng(1).integers(1, classes, count)
    return boxes(height, width, count, seed=1), drawn


def masks(of: np.ndarray, height: int, width: int) -> np.ndarray:
    """One filled ellipse per box: uint8 [n, height, width], pixel i at i + 0.5."""
    y, x = np.mgrid[:height, :width] + 0.5
    drawn = np.zeros([len(of), height, width], np.uint8)
    for mask, (y1, x1, y2, x2) in zip(drawn, of, strict=True):
        rows, columns = slice(int(y1), int(y2) + 1), slice(int(x1), int(x2) + 1)
        down = (y[rows, columns] - (y1 + y2) / 2) / ((y2 - y1) / 2)
        across = (x[rows, columns] - (x1 + x2) / 2) / ((x2 - x1) / 2)
        mask[rows, columns] = down**2 + across**2 <= 1
    return drawn


def training_proposals(height: int, width: int, count: int, near: np.ndarray) -> np.ndarray:
    """Proposals of which three in ten are objects' boxes, moved by up to a tenth of their size.

    With IoU 0.5 or more those are enough for every quarter of positives that is sampled.
    """
    rng = np.random.default_rng(2)
    moved = near[rng.integers(0, len(near), count * 3 // 10)]
    size = np.tile(moved[:, 2:] - moved[:, :2], 2)
    moved = np.clip(moved + rng.uniform(-0.1, 0.1, moved.shape) * size, 0, [height, width] * 2)
    anywhere = boxes(height, width, count - len(moved), seed=2)
    return rng.permutation(np.concatenate([moved, anywhere])).astype(np.float32)
