"""What the mask branch costs at inference, over Faster R-CNN, ours beside torchvision's.

R50-FPN, one image of 800 x 1344, 1000 proposals, 100 boxes, float32. Both networks have random
weights and 91 classes, run their whole RPN and then look at the same 1000 boxes. A process takes
the network with and without its mask branch in turn; the processes of the two projects take turns.
Pasting masks into the image is not in it.

    python benchmarks/mask_overhead.py --torchvision_python=/path/to/python/with/torchvision

prints a line per process and one JSON line last: medians in seconds and, per project, the ratio
with / without, pair by pair. The paper says about 1.2 (section 4.4); by multiply-adds it is 1.25.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import numpy as np
import scene
import timing

HEIGHT, WIDTH, PROPOSALS, BOXES, CLASSES = 800, 1344, 1000, 100, 91


def measure_ours(rounds: int) -> dict:
    """Time our network in this process."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    import tensorflow as tf

    from mrcnn_tf.experiment import loading
    from mrcnn_tf.modeling import build
    from mrcnn_tf.modeling.proposals import Proposals

    config = loading.load("maskrcnn_r50_fpn").task.model
    config.override({"detection": {"score_threshold": 0.0}})
    model = build.build_model(config, CLASSES)
    # Identity norms over random weights: without damping, features of 16 blocks would overflow.
    for stage in (model.backbone.stage2, model.backbone.stage3, model.backbone.stage4,
                  model.backbone.stage5):  # fmt: skip
        for block in stage.blocks:
            block.norm3.gamma.assign(tf.fill(block.norm3.gamma.shape, 0.2))
    logits = model.roi_heads.box_head.class_logits
    logits.kernel.assign(tf.random.stateless_normal(logits.kernel.shape, [1, 2], stddev=0.05))
    images = tf.constant(scene.image(HEIGHT, WIDTH)[np.newaxis])
    size = tf.constant([[float(HEIGHT), float(WIDTH)]])
    boxes = tf.constant(scene.boxes(HEIGHT, WIDTH, PROPOSALS)[np.newaxis])

    def detect(with_masks: bool):
        features = model.features(images, training=False)
        own = model.rpn(features, size)
        with tf.control_dependencies([own.boxes]):
            valid = tf.ones([1, PROPOSALS], tf.bool)
            given = Proposals(tf.identity(boxes), tf.zeros([1, PROPOSALS]), valid)
        found = model.find_boxes(features, given, size)
        if not with_masks:
            return found.boxes, found.valid
        return model.roi_heads.masks(features, found.boxes, found.classes), found.valid

    runs = {
        name: tf.function(lambda flag=flag: detect(flag), autograph=False)
        for name, flag in (("without", False), ("with", True))
    }
    count = int(np.count_nonzero(runs["with"]()[1]))
    taken = timing.in_turn({n: lambda f=f: f()[0].numpy() for n, f in runs.items()}, rounds)
    seconds = {n: of.seconds for n, of in taken.items()}
    return {"boxes": count, "seconds": seconds, "peak_mib": timing.peak_memory_mib()}


def report(name: str, processes: list[dict]) -> dict:
    """Summarise the processes of one project."""
    without = [s for p in processes for s in p["seconds"]["without"]]
    with_masks = [s for p in processes for s in p["seconds"]["with"]]
    ratios = [b / a for a, b in zip(without, with_masks, strict=True)]
    return {
        "project": name,
        "boxes": processes[0]["boxes"],
        "without_s": statistics.median(without),
        "with_s": statistics.median(with_masks),
        "with_over_without": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        "peak_mib": max(p["peak_mib"] for p in processes),
    }


def main() -> None:
    """Run the processes in turn and print what they measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torchvision_python", help="interpreter of an environment that has it")
    parser.add_argument("--processes", type=int, default=3, help="of each project")
    parser.add_argument("--rounds", type=int, default=5, help="in each process")
    parser.add_argument("--measure_ours", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_ours:
        print(json.dumps(measure_ours(args.rounds)))
        return
    here = pathlib.Path(__file__).resolve().parent
    commands = {"ours": [sys.executable, __file__, "--measure_ours", f"--rounds={args.rounds}"]}
    if args.torchvision_python:
        script = here / "peers" / "torchvision_inference.py"
        scene_flags = [f"--{n}={v}" for n, v in (("height", HEIGHT), ("width", WIDTH),
                       ("proposals", PROPOSALS), ("classes", CLASSES))]  # fmt: skip
        commands["torchvision"] = [args.torchvision_python, str(script), *scene_flags]
        commands["torchvision"].append(f"--rounds={args.rounds}")
    found: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(args.processes):
        for name, command in commands.items():
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[name].append(json.loads(output.strip().splitlines()[-1]))
            print(name, found[name][-1], flush=True)
    print(json.dumps([report(name, processes) for name, processes in found.items()]))


if __name__ == "__main__":
    main()
