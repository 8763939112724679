"""How a tensor is laid out elsewhere and here, both ways.

On the torch side: convolutions OIHW, dense [out, in], transposed convolutions IOHW, features NCHW,
boxes (x, y, w, h). Ours: HWIO, [in, out], HWOI, NHWC, (y, x, h, w).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """A pair of inverse functions.

    Attributes:
      to_ours: their tensor -> ours.
      to_theirs: ours -> theirs; `to_ours(to_theirs(x)) == x` exactly.
    """

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def then(*steps: Layout) -> Layout:
    """Return the layout that takes the steps one after the other, and back in reverse order."""

    def to_ours(tensor: np.ndarray) -> np.ndarray:
        for step in steps:
            tensor = step.to_ours(tensor)
        return tensor

    def to_theirs(tensor: np.ndarray) -> np.ndarray:
        for step in reversed(steps):
            tensor = step.to_theirs(tensor)
        return tensor

    return Layout(to_ours, to_theirs)


# Any shape, unchanged.
SAME = Layout(lambda tensor: tensor, lambda tensor: tensor)

# [out, in, h, w] <-> [h, w, in, out]; for a transposed one [in, out, h, w] <-> [h, w, out, in].
# Neither framework flips the kernel of a transposed convolution, so the axes are all there is.
CONV = Layout(
    lambda kernel: kernel.transpose(2, 3, 1, 0), lambda kernel: kernel.transpose(3, 2, 0, 1)
)

# [out, in] <-> [in, out].
DENSE = Layout(lambda kernel: kernel.transpose(1, 0), lambda kernel: kernel.transpose(1, 0))

# 1x1 convolution [out, in, 1, 1] <-> matrix [in, out].
PREDICTOR = Layout(
    lambda kernel: kernel.squeeze((2, 3)).transpose(1, 0),
    lambda kernel: kernel.transpose(1, 0)[:, :, np.newaxis, np.newaxis],
)


# 1-D convolution of length 1 [out, in, 1] <-> [in, out].
CONV_1D = Layout(
    lambda kernel: kernel.squeeze(2).transpose(1, 0),
    lambda kernel: kernel.transpose(1, 0)[:, :, np.newaxis],
)


def dense_after_flatten(channels: int) -> Layout:
    """[out, C * side * side] <-> [side * side * C, out]: the feature was flattened as NCHW."""

    def to_ours(kernel: np.ndarray) -> np.ndarray:
        outputs = kernel.shape[0]
        by_channel = kernel.reshape(outputs, channels, -1)
        return by_channel.transpose(2, 1, 0).reshape(-1, outputs)

    def to_theirs(kernel: np.ndarray) -> np.ndarray:
        outputs = kernel.shape[1]
        by_cell = kernel.reshape(-1, channels, outputs)
        return by_cell.transpose(2, 1, 0).reshape(outputs, -1)

    return Layout(to_ours, to_theirs)


def classes_last(num_classes: int) -> Layout:
    """[K * cells, ...] <-> [cells * K, ...]: a mask of each class, whose cells are interleaved."""

    def to_ours(rows: np.ndarray) -> np.ndarray:
        by_class = rows.reshape(num_classes, -1, *rows.shape[1:])
        return by_class.swapaxes(0, 1).reshape(rows.shape)

    def to_theirs(rows: np.ndarray) -> np.ndarray:
        by_cell = rows.reshape(-1, num_classes, *rows.shape[1:])
        return by_cell.swapaxes(0, 1).reshape(rows.shape)

    return Layout(to_ours, to_theirs)


def _swap_xy(tensor: np.ndarray) -> np.ndarray:
    grouped = tensor.reshape(-1, 4, *tensor.shape[1:])
    return grouped[:, [1, 0, 3, 2]].reshape(tensor.shape)


# [K * (dx, dy, dw, dh), ...] <-> [K * (dy, dx, dh, dw), ...], for anchors or for classes.
BOX_ROWS = Layout(_swap_xy, _swap_xy)

# [classes and background, ...] <-> [background and classes, ...].
BACKGROUND_FIRST = Layout(
    lambda rows: np.roll(rows, 1, axis=0), lambda rows: np.roll(rows, -1, axis=0)
)


def without_background(rows_per_class: int) -> Layout:
    """[N * k, ...] <-> [(N - 1) * k, ...]: background's rows, never used, become zeros."""

    def to_theirs(rows: np.ndarray) -> np.ndarray:
        background = np.zeros([rows_per_class, *rows.shape[1:]], rows.dtype)
        return np.concatenate([background, rows])

    return Layout(lambda rows: rows[rows_per_class:], to_theirs)
