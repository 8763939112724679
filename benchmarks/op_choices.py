"""What comments in mrcnn_tf say was measured: each choice beside what was not chosen (CPU).

python benchmarks/op_choices.py [--case NAME]

* nms_tiles: NMS of 5 levels with 1000 heaped boxes each, by the size of its tiles, under XLA.
* nms_kernel: the same without XLA, TensorFlow's C++ kernel beside the tiled one.
* top_k_of_slices: 256 random ones of 268,000 anchors in two images under XLA, one gather from both
  lists of top_k, and a slice of each list.
* top_k_of_int32: the 256 largest of 2 x 2 x 268,000 numbers under XLA, float32 and int32.
* scatter_rows: 10 rounds of 128 RoIs added to 1000 x 7 x 7 x 256 under XLA, as rows of C channels
  and as rows of P * P * C.
* weighted_sums: RoIAlign's sums of 512 RoIs of 7 x 7 cells and 16 taps, and their gradient: a
  sparse matrix times the pixels, and the pixels gathered and multiplied.
* strided_convolution: the gradients of a 3x3 convolution of stride 2, padded by itself and by a
  copy of its input, in float32 and bfloat16.
* depthwise_convolution: the gradients of depthwise convolutions of EfficientNet-Lite0 on two images
  of 320 pixels, kernel x kernel / stride, by TensorFlow in both types and as done here.
* mask_targets: mean IoU of binary targets with those of adaptive sampling, for round, slim and
  notched objects in RoIs of 56 to 224 pixels, and of 224 to 800; by samples per cell and axis.

Prints one JSON line: {case: {choice: median milliseconds}}, of mask_targets {choice: [IoU, IoU]}.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import timing  # noqa: E402

from mrcnn_tf.ops import depthwise, implementation, masks, nms, sampling, weighted_gather  # noqa: E402

ROUNDS = 15
ANCHORS = 268_000


def timed(functions: dict[str, Callable[[], object]], jit_compile: bool | None = True) -> dict:
    """Return the median milliseconds of functions without arguments, as graphs, in turns."""
    graphs = {
        name: tf.function(f, jit_compile=jit_compile, autograph=False)
        for name, f in functions.items()
    }
    runs = {
        name: lambda graph=graph: [t.numpy() for t in tf.nest.flatten(graph())]
        for name, graph in graphs.items()
    }
    taken = timing.in_turn(runs, ROUNDS)
    return {name: round(of.median * 1e3, 1) for name, of in taken.items()}


def suppress(**replaced: object) -> Callable[[], object]:
    """Return NMS of 5 levels with 1000 boxes in 40 heaps each, traced with other constants."""
    rng = np.random.default_rng(0)
    center = rng.uniform(0, 1000, [5, 40, 2])[:, rng.integers(0, 40, 1000)]
    center += rng.normal(0, 8, center.shape)
    half = rng.uniform(30, 60, center.shape)
    boxes = tf.Variable(np.concatenate([center - half, center + half], -1).astype(np.float32))
    scores = tf.Variable(rng.standard_normal([5, 1000]).astype(np.float32))

    def run():
        kept = {name: getattr(nms, name) for name in replaced}
        for name, value in replaced.items():
            setattr(nms, name, value)
        try:
            return nms.nms(boxes, scores, tf.ones([5, 1000], tf.bool), 0.7, 1000)
        finally:
            for name, value in kept.items():
                setattr(nms, name, value)

    return run


def nms_tiles() -> dict:
    """Time the sizes of a tile."""
    return timed({str(size): suppress(TILE_SIZE=size) for size in (128, 256, 512, 1000)})


def nms_kernel() -> dict:
    """Time the implementations of NMS without XLA."""

    def forced(accelerators: bool) -> Callable[[], object]:
        run = suppress()

        def traced():
            with implementation.force(accelerators):
                return run()

        return traced

    return timed({"kernel": forced(False), "tiled": forced(True)}, jit_compile=None)


def top_k_of_slices() -> dict:
    """Time sampling, and the same with the two lists of top_k sliced apart."""
    rng = np.random.default_rng(0)
    positive = tf.Variable(rng.random([2, ANCHORS]) < 0.01)
    negative = tf.Variable(~positive.numpy())
    seeds = sampling.image_seeds(0, 1, tf.constant([3, 4]), stream=0)

    def one_gather():
        return sampling.sample(positive, negative, 256, 0.5, seeds)

    def slices():
        selectors = tf.stack([positive, negative], axis=1)
        priorities = sampling._random_priorities(seeds, ANCHORS)
        _, ranked = tf.math.top_k(tf.where(selectors, priorities[:, tf.newaxis], -1.0), k=256)
        drawn = tf.minimum(tf.math.count_nonzero(positive, 1, True, dtype=tf.int32), 128)
        slot = tf.range(256)[tf.newaxis]
        of_negatives = tf.gather(ranked[:, 1], tf.maximum(slot - drawn, 0), batch_dims=1)
        return tf.where(slot < drawn, ranked[:, 0], of_negatives)

    return timed({"one gather": one_gather, "slices": slices})


def top_k_of_int32() -> dict:
    """Time top_k of both types."""
    numbers = np.random.default_rng(0).integers(0, 2**24, [2, 2, ANCHORS])
    given = {dtype.name: tf.Variable(numbers, dtype=dtype) for dtype in (tf.float32, tf.int32)}
    return timed({name: lambda x=x: tf.math.top_k(x, 256) for name, x in given.items()})


def scatter_rows() -> dict:
    """Time the rounds of adaptive RoIAlign with both layouts of their total."""
    part = tf.Variable(tf.ones([128 * 49, 256]))
    roi = tf.constant(np.random.default_rng(0).integers(0, 1000, [10, 128]))

    def rounds(rows_per_roi: int) -> Callable[[], object]:
        def add(i, total):
            row = roi[i][:, tf.newaxis] * rows_per_roi + tf.range(rows_per_roi, dtype=tf.int64)
            updates = tf.reshape(part * tf.cast(i, tf.float32), [128 * rows_per_roi, -1])
            return i + 1, tf.tensor_scatter_nd_add(total, tf.reshape(row, [-1, 1]), updates)

        def run():
            total = tf.zeros([1000 * rows_per_roi, 49 // rows_per_roi * 256])
            return tf.while_loop(lambda i, _: i < 10, add, (0, total))[1][:1]

        return run

    return timed({"C": rounds(49), "P * P * C": rounds(1)})


def weighted_sums() -> dict:
    """Time ways to sum up pixels without XLA."""
    rng = np.random.default_rng(0)
    num_rows, cells, taps = 90_000, 512 * 49, 16
    table = tf.Variable(rng.standard_normal([num_rows, 256]).astype(np.float32))
    upstream = tf.Variable(rng.standard_normal([cells, 256]).astype(np.float32))
    first = rng.integers(0, num_rows - 6000, [512, 1])
    near = rng.integers(0, 14, [512, 49 * taps]) * 336 + rng.integers(0, 14, [512, 49 * taps])
    index = tf.constant((first + near).reshape(cells, taps), tf.int32)
    weight = tf.constant(rng.random([cells, taps]), tf.float32)

    def gathered():
        pixels = tf.gather(table, index)  # [N, K, C]
        return tf.squeeze(weight[:, tf.newaxis] @ pixels, 1)

    def scattered():
        products = tf.reshape(upstream[:, tf.newaxis] * weight[..., tf.newaxis], [-1, 256])
        return tf.math.unsorted_segment_sum(products, tf.reshape(index, [-1]), num_rows)

    choices = {
        "sparse product": lambda: weighted_gather.sparse_product(table, index, weight),
        "gathered": gathered,
        "transposed product": lambda: weighted_gather.transposed_product(
            upstream, index, weight, num_rows
        ),
        "scattered": scattered,
    }
    return timed(choices, jit_compile=None)


def strided_convolution() -> dict:
    """Time the gradients of input and kernel, 200 x 336 x 128 pixels."""
    rng = np.random.default_rng(0)
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]

    def gradients(dtype: tf.DType, padded_apart: bool) -> Callable[[], object]:
        features = tf.Variable(tf.cast(rng.standard_normal([1, 200, 336, 128]), dtype))
        kernel = tf.Variable(tf.cast(rng.standard_normal([3, 3, 128, 128]), dtype))

        def run():
            with tf.GradientTape() as tape:
                inputs = tf.identity(features)
                tape.watch(inputs)
                if padded_apart:
                    outputs = tf.nn.conv2d(tf.pad(inputs, around), kernel, 2, "VALID")
                else:
                    outputs = tf.nn.conv2d(inputs, kernel, 2, around)
            found = tape.gradient(outputs, [inputs, kernel])
            return [tf.reduce_sum(tf.cast(g, tf.float32)) for g in found]

        return run

    return timed(
        {
            f"{dtype.name} {name}": gradients(dtype, padded_apart)
            for dtype in (tf.float32, tf.bfloat16)
            for name, padded_apart in (("explicit", False), ("apart", True))
        },
        jit_compile=None,
    )


def depthwise_convolution() -> dict:
    """Time TensorFlow's gradients of depthwise convolutions in both types, and ours."""
    functions = {}
    for side, channels, size, stride in (
        (160, 96, 3, 2),
        (80, 144, 3, 1),
        (80, 144, 5, 2),
        (20, 672, 5, 1),
    ):

        def gradients(dtype, accelerators, side=side, channels=channels, size=size, stride=stride):
            shapes = [2, side, side, channels], [size, size, 1, channels]
            x, kernel = (
                tf.Variable(tf.cast(tf.random.stateless_normal(shape, [0, 1]), dtype))
                for shape in shapes
            )

            def run():
                with implementation.force(accelerators), tf.GradientTape() as tape:
                    y = depthwise.depthwise_conv(x.value(), kernel.value(), stride)
                    loss = tf.reduce_sum(y)
                return tape.gradient(loss, [x, kernel])

            return run

        name = f"{size}x{size}/{stride}"
        functions |= {
            f"{name} float32": gradients(tf.float32, True),
            f"{name} bfloat16": gradients(tf.bfloat16, True),
            f"{name} bfloat16, here": gradients(tf.bfloat16, False),
        }
    return timed(functions, jit_compile=None)


def mask_targets() -> dict:
    """Compare fixed numbers of samples with adaptive ones."""
    rng = np.random.default_rng(0)
    size, objects, rois = 256, 30, 40
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    bits = []
    for _ in range(objects):
        turn, ratio, notch = rng.uniform(0, np.pi), rng.uniform(0.15, 1), rng.uniform(-0.5, 0.5, 2)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        inside = (2 * u) ** 2 + (2 * v / ratio) ** 2 < 1
        bits.append(np.packbits(inside & (np.hypot(y - notch[0], x - notch[1]) > 0.15)))
    arena = tf.constant(np.stack(bits))
    line = {}
    ranges = ((56, 224), (224, 800))
    for ratio in (1, 2, 3):
        means = []
        for low, high in ranges:
            side = np.exp(rng.uniform(np.log(low), np.log(high), [objects, 1, 1]))
            corner = rng.uniform(0, 1000 - side, [objects, 1, 2])
            frames = np.concatenate([corner, corner + side], -1).astype(np.float32)
            boxes = frames + rng.normal(0, 0.1, [objects, rois, 4]) * side

            def targets(ratio, frames=frames, boxes=boxes):
                return masks.mask_targets(
                    arena,
                    tf.zeros([objects, 1], tf.int32),
                    tf.fill([objects, 1, 2], size),
                    tf.constant(frames),
                    tf.fill([objects, 2], 1000.0),
                    tf.constant(boxes, tf.float32),
                    tf.zeros([objects, rois], tf.int32),
                    28,
                    "detectron2",
                    ratio,
                ).numpy()

            got, want = targets(ratio), targets(0)
            union = np.maximum(got, want).sum((2, 3))
            iou = np.minimum(got, want).sum((2, 3))[union > 0] / union[union > 0]
            means.append(round(float(iou.mean()), 3))
        line[str(ratio)] = means
    return line


CASES = (
    nms_tiles,
    nms_kernel,
    top_k_of_slices,
    top_k_of_int32,
    scatter_rows,
    weighted_sums,
    strided_convolution,
    depthwise_convolution,
    mask_targets,
)


def main() -> None:
    """Print the JSON line."""
    names = [case.__name__ for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=names, action="append")
    chosen = parser.parse_args().case or names
    print(json.dumps({case.__name__: case() for case in CASES if case.__name__ in chosen}))


if __name__ == "__main__":
    main()
