"""Seconds of inference of our R50-FPN on the scene: without masks, with masks, and as exported.

python benchmarks/inference.py [--height=512 --width=512] [--dtype=bfloat16] [--xla]

1000 given proposals, 100 boxes. The first two take network input and return boxes, or boxes and
28 x 28 masks. `exported` is a SavedModel that takes a uint8 image of that size, normalises it and
answers everything that clients get. Prints one JSON line.
"""

import argparse
import tempfile
from typing import Any

import network
import numpy as np
import scene
import tensorflow as tf
import timing

from mrcnn_tf import detector
from mrcnn_tf.data.label_map import LabelMap


def exported(model: Any, config: Any, size: tuple[int, int], folder: str) -> Any:
    """Export the network, load it, return the function that clients call."""
    data, classes = config.task.validation_data, config.task.model.num_classes
    data.short_edges, data.long_edge, data.canvas = (min(size),), max(size), "exact"
    label_map = LabelMap(
        tuple(range(1, classes)), tuple(f"c{number}" for number in range(1, classes))
    )
    detector.Detector(
        model, label_map, detector.preprocessor(config), config.task.model.detection.mask_paste
    ).export(folder, "image_tensor")
    return tf.saved_model.load(folder).signatures["serving_default"]


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--preset", default="torchvision", help="whose conventions")
    parser.add_argument("--proposals", type=int, default=scene.PROPOSALS)
    parser.add_argument("--classes", type=int, default=scene.CLASSES, help="with background")
    parser.add_argument("--no_export", action="store_true", help="leave out the SavedModel")
    parser.add_argument("--xla", action="store_true", help="compile; leaves out the SavedModel")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    network.set_dtype(args.dtype)
    config = network.experiment(preset=args.preset, classes=args.classes, proposals=args.proposals)
    model = network.build_model(config)
    network.give_proposals(model, scene.boxes(args.height, args.width, args.proposals))
    images, sizes = network.images(args.height, args.width, args.batch)

    def boxes_only(images, sizes):
        features = model.features(images, training=False)
        return model.find_boxes(features, model.rpn(features, sizes), sizes)

    found: dict[str, Any] = {}
    compiled = args.xla or None
    boxes = tf.function(boxes_only, jit_compile=compiled, autograph=False)
    masks = tf.function(lambda x, s: model(x, s), jit_compile=compiled, autograph=False)

    def without_masks():
        found["boxes"] = np.count_nonzero(boxes(images, sizes).valid.numpy())

    def with_masks():
        found["masks"] = masks(images, sizes).masks.numpy()

    peak = {}
    for run in (without_masks, with_masks):
        run()
        peak[run.__name__] = timing.peak_memory_mib()
    runs = {"without_masks": without_masks, "with_masks": with_masks}
    with tempfile.TemporaryDirectory() as folder:
        if not (args.xla or args.no_export):
            serve = exported(model, config, (args.height, args.width), folder)
            pixels = tf.cast(tf.clip_by_value(images * 58.0 + 115.0, 0.0, 255.0), tf.uint8)

            def as_exported():
                found["exported"] = {k: v.numpy() for k, v in serve(input_tensor=pixels).items()}

            runs["exported"] = as_exported
        taken = timing.in_turn(runs, args.rounds)
    timing.print_line(
        benchmark="inference",
        contestant="ours",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        masks_over_none=round(taken["with_masks"].median / taken["without_masks"].median, 3),
        boxes=int(found["boxes"]),
        masks=list(found["masks"].shape),
        finite=bool(np.isfinite(found["masks"].astype(np.float32)).all()),
        peak_mib=peak | {"whole": timing.peak_memory_mib()},
    )


if __name__ == "__main__":
    main()
