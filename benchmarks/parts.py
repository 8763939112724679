"""Where the time of a training step and of inference goes, part by part, beside its floor (CPU).

python benchmarks/parts.py [--dtype=bfloat16] [--task=inference] [--markdown]

R50-FPN on `scene.py`, one image of 800 x 1344. Of each part: GFLOP by hand (`flops.py`), the
seconds they would take at the best rate at which this machine convolved or multiplied matrices in
the same process (the floor), and what a profile of the same graph says (`profile_of_ops.py`):
seconds of the layers' convolutions and matrix products, and of everything else. Parts without GFLOP
have only the latter.

Prints one JSON line; with --markdown the table, and the longest ops, in front of it.
"""

import argparse
import collections
from typing import Any

import flops
import network
import numpy as np
import profile_of_ops
import scene
import tensorflow as tf
import timing


def rates(dtype: str, rounds: int) -> dict[str, float]:
    """GFLOP per second of this machine: matrix product, convolution, and its two gradients."""
    numbers = np.random.default_rng(0)

    def random(*shape: int) -> tf.Tensor:
        return tf.cast(tf.constant(numbers.normal(size=shape), tf.float32), dtype)

    side, (height, width, channels) = 3072, (100, 168, 256)
    square = random(side, side)
    features, kernel = random(1, height, width, channels), random(3, 3, channels, channels)
    convolution = 2e-9 * height * width * 9 * channels**2
    sizes = tf.shape(features), tf.shape(kernel)
    cases = {
        "matrix product": (2e-9 * side**3, lambda: tf.matmul(square, square)),
        "convolution": (convolution, lambda: tf.nn.conv2d(features, kernel, 1, "SAME")),
        "gradient of its input": (
            convolution,
            lambda: tf.raw_ops.Conv2DBackpropInput(
                input_sizes=sizes[0], filter=kernel, out_backprop=features, strides=[1] * 4,
                padding="SAME",
            ),
        ),
        "gradient of its kernel": (
            convolution,
            lambda: tf.raw_ops.Conv2DBackpropFilter(
                input=features, filter_sizes=sizes[1], out_backprop=features, strides=[1] * 4,
                padding="SAME",
            ),
        ),
    }  # fmt: skip
    graphs = {name: tf.function(run, autograph=False) for name, (_, run) in cases.items()}
    # Only the last element is fetched, so that copying the result is not in it.
    taken = timing.in_turn(
        {
            name: lambda graph=graph: tf.reshape(graph(), [-1])[-1].numpy()
            for name, graph in graphs.items()
        },
        rounds,
        warm_up=2,
    )
    return {name: round(cases[name][0] / min(taken[name].seconds), 1) for name in cases}


def inference(config: Any, height: int, width: int, batch: int) -> tuple[Any, Any]:
    """Return one call of the network, masks included, and its graph."""
    model = network.build_model(config)
    count = config.task.model.rpn.post_nms_top_k_test
    network.give_proposals(model, scene.boxes(height, width, count))
    images, sizes = network.images(height, width, batch)
    function = tf.function(lambda x, s: model(x, s), autograph=False)
    graph = function.get_concrete_function(images, sizes).graph
    return lambda: function(images, sizes).masks.numpy(), graph


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time, profile and count."""
    network.set_dtype(args.dtype)
    norm = "frozen_batch_norm" if args.task == "inference" or args.freeze_at else "batch_norm"
    config = network.experiment(preset=args.preset, norm=norm, freeze_at=args.freeze_at)
    fields, size = config.task.model, (args.height, args.width, args.batch)
    rate = rates(args.dtype, args.rounds + 7)
    if args.task == "train":
        step = network.training_step(config, *size)
        call, graph = step.run, step.graph
        rois, masks = fields.box_head.rois_per_image, fields.box_head.rois_per_image // 4
    else:
        call, graph = inference(config, *size)
        rois, masks = fields.rpn.post_nms_top_k_test, fields.max_instances
    counted = flops.gflop(
        *size, rois=rois, masks=masks, stride_in_1x1=fields.backbone.stride_in_1x1,
        freeze_at=fields.backbone.freeze_at,
    )  # fmt: skip
    directions = ("forward", "backward") if args.task == "train" else ("forward",)
    total = timing.in_turn({"call": call}, args.rounds, args.warm_up)["call"]
    ops, idle = profile_of_ops.profile(call, graph, args.profiled)
    profiled = sum(op.seconds for op in ops) + idle
    best = max(rate.values())
    layers: collections.Counter = collections.Counter()
    others: collections.Counter = collections.Counter()
    kinds: collections.Counter = collections.Counter()
    for op in ops:
        row = (op.part, "backward" if op.backward else "forward")
        (layers if op.is_of_layer else others)[row] += op.seconds
        if not op.is_of_layer:
            kinds[op.part, op.kind] += op.seconds
    rows = {}
    for part in dict.fromkeys([*flops.PARTS, *(op.part for op in ops), "idle"]):
        for direction in directions:
            row = (part, direction)
            gflop = counted[direction].get(part, 0.0)
            seconds = layers[row] + others[row]
            if part == "idle" and direction == "forward":
                seconds = others[row] = idle
            if seconds or gflop:
                rows[f"{part}, {direction}"] = {
                    "gflop": round(gflop, 2),
                    "floor_s": round(gflop / best, 4),
                    "layers_s": round(layers[row], 4),
                    "others_s": round(others[row], 4),
                    "share": round(seconds / profiled, 4),
                }
    gflop = sum(sum(counted[direction].values()) for direction in directions)
    return {
        "benchmark": "parts",
        "args": vars(args),
        "gflop_per_s": rate,
        "seconds": {"call": total.summary(), "profiled": round(profiled, 4)},
        "gflop": round(gflop, 2),
        "floor_s": round(gflop / best, 4),
        "share_of_others": round(1 - sum(layers.values()) / profiled, 4),
        "parts": rows,
        "longest": [
            {"name": op.name, "kind": op.kind, "part": op.part, "ms": round(op.seconds * 1e3, 1)}
            for op in ops[: args.longest]
        ],
        "other_kinds": [
            {"part": part, "kind": kind, "ms": round(seconds * 1e3, 1)}
            for (part, kind), seconds in kinds.most_common(args.longest)
        ],
        "peak_mib": timing.peak_memory_mib(),
    }


def markdown(line: dict[str, Any]) -> str:
    """Draw the tables."""
    text = [
        f"{line['gflop']} GFLOP, floor {line['floor_s']} s at {max(line['gflop_per_s'].values())} "
        f"GFLOP/s; {line['seconds']['call']['median']} s, "
        f"{line['seconds']['profiled']} s under the profiler, of which "
        f"{line['share_of_others']:.1%} are neither a layer's convolution nor its matrix product",
        "",
        "| part | GFLOP | floor, s | convolutions and products, s | all else, s | share |",
        "|---|---|---|---|---|---|",
    ]
    text += [
        f"| {name} | {row['gflop'] or ''} | {row['floor_s'] or ''} | {row['layers_s'] or ''} "
        f"| {row['others_s']} | {row['share']:.1%} |"
        for name, row in line["parts"].items()
    ]
    text += ["", "| longest ops | type | part | ms |", "|---|---|---|---|"]
    text += [
        f"| {op['name']} | {op['kind']} | {op['part']} | {op['ms']} |" for op in line["longest"]
    ]
    text += ["", "| neither convolution nor product | type | ms |", "|---|---|---|"]
    text += [f"| {of['part']} | {of['kind']} | {of['ms']} |" for of in line["other_kinds"]]
    return "\n".join(text)


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=("train", "inference"), default="train")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--freeze_at", type=int, default=0, help="0: batch norms learn")
    parser.add_argument("--preset", default="torchvision")
    parser.add_argument("--warm_up", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profiled", type=int, default=2, help="calls under the profiler")
    parser.add_argument("--longest", type=int, default=25, help="ops that are listed")
    parser.add_argument("--markdown", action="store_true")
    line = measure(parser.parse_args())
    if line["args"]["markdown"]:
        print(markdown(line))
    timing.print_line(**line)


if __name__ == "__main__":
    main()
