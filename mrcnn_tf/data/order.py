"""The order of training images, and where a run that was stopped goes on in it.

The stream of images has positions 0, 1, 2, ...: position p is place p % n of epoch p // n, and an
epoch is every record of the set once, in an order that the seed and the number of the epoch give.
With repeat factors an epoch has some records several times, and n is the most that it can have:
epochs that have fewer leave the last positions out.
Which images share a step is decided along the stream: an image waits for its canvas until it has
as many as a step needs, the `window`. So all that a run has seen after k steps are the images up
to some position but those that still wait, and both follow from numbers alone, without reading.

Shape letter: `n` records.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import augment


class Rows(NamedTuple):
    """Images on their way, each a number of the stream; `n` of them, or one (without the `n`).

    Attributes:
      position: int64 [n], in the stream; -1 for a blank image, which fills a step up.
      record: int32 [n], its row of the index.
      short_edge: int32 [n], to which the image is resized, pixels.
      canvas_hw: int32 [n, (height, width)], to which it is padded, pixels.
    """

    position: tf.Tensor
    record: tf.Tensor
    short_edge: tf.Tensor
    canvas_hw: tf.Tensor


class Place(NamedTuple):
    """Where a run stands in the stream.

    Attributes:
      epoch: of the first image that was not yet looked at.
      offset: its place there.
      waiting: those before it that wait for their canvas, in their order; NumPy arrays.
    """

    epoch: int
    offset: int
    waiting: Rows


def of_epoch(
    epoch: tf.Tensor,
    *,
    size_hw: tf.Tensor,
    seed: int,
    short_edges: tuple[int, ...],
    choose_canvas: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    repeats: np.ndarray | None = None,
) -> Rows:
    """Return the images of an epoch.

    Args:
      epoch: int64 [], from 0.
      size_hw: int32 [n, (height, width)] of the stored images.
      seed: of the order, and of the short edges.
      short_edges: to choose from.
      choose_canvas: `(size_hw, short_edge) -> canvas_hw`, each as in `Rows`.
      repeats: float [n], how often each record is in an epoch, on average; None for once.
    """
    seed_of_epoch = tf.stack([tf.constant(seed, tf.int64), epoch])
    if repeats is None:
        most = count = size_hw.shape[0]
        record = augment.random_order(count, seed_of_epoch)
    else:
        most = int(np.ceil(repeats).sum())
        times = augment.random_rounding(tf.constant(repeats, tf.float32), seed_of_epoch)
        record = tf.repeat(tf.range(len(repeats)), times)
        count = tf.size(record)
        record = tf.gather(record, augment.random_order(count, seed_of_epoch))
    short_edge = augment.random_short_edges(short_edges, seed_of_epoch, count)
    return Rows(
        position=epoch * most + tf.range(tf.cast(count, tf.int64)),
        record=record,
        short_edge=short_edge,
        canvas_hw=choose_canvas(tf.gather(size_hw, record), short_edge),
    )


def place_after(
    num_steps: int, window: int, rows_of: Callable[[int], Rows], *, same_canvases: bool
) -> Place:
    """Find where a run stands, by going through the numbers of the images that it has seen.

    Args:
      num_steps: how many steps were taken.
      window: images per step.
      rows_of: an epoch's images, NumPy arrays.
      same_canvases: whether every epoch has the same images, on the same canvases. Then nothing
        waits at the end of every `window`-th epoch, since each canvas has had a multiple of
        `window` images: the search begins at the last of these.
    """
    epoch, left = 0, num_steps
    rows = rows_of(0)
    num_records = len(rows.record)
    waiting = _chosen(rows, np.zeros([0], np.int64))
    if same_canvases:
        rounds = num_steps // num_records  # of `window` epochs, in which `n` steps are taken
        epoch, left = rounds * window, num_steps - rounds * num_records
    while left:
        rows = Rows(*map(np.concatenate, zip(waiting, rows_of(epoch), strict=True)))
        rank = _rank(rows.canvas_hw)
        completed = np.flatnonzero(rank % window == window - 1)  # where a step gets its last image
        is_over = len(completed) >= left
        seen = completed[left - 1] + 1 if is_over else len(rows.record)
        offset = seen - len(waiting.record)
        waiting = _chosen(rows, _waiting(rows.canvas_hw[:seen], rank[:seen], window))
        if is_over:
            return Place(epoch, offset, waiting)
        epoch, left = epoch + 1, left - len(completed)
    return Place(epoch, 0, waiting)


def _rank(canvas_hw: np.ndarray) -> np.ndarray:
    """Return int64 [n]: how many images before this one have its canvas."""
    _, canvas = np.unique(canvas_hw, axis=0, return_inverse=True)
    canvas = canvas.reshape(-1)
    by_canvas = np.argsort(canvas, kind="stable")
    counts = np.bincount(canvas)
    rank = np.empty(len(canvas), np.int64)
    rank[by_canvas] = np.arange(len(canvas)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _waiting(canvas_hw: np.ndarray, rank: np.ndarray, window: int) -> np.ndarray:
    """Return the indices of the images whose canvas has not filled the step that they wait for."""
    _, canvas = np.unique(canvas_hw, axis=0, return_inverse=True)
    canvas = canvas.reshape(-1)
    in_full_steps = np.bincount(canvas) // window * window
    return np.flatnonzero(rank >= in_full_steps[canvas])


def _chosen(rows: Rows, index: np.ndarray) -> Rows:
    return Rows(*(column[index] for column in rows))
