"""Seconds of one training step of our R50-FPN on the scene, through the project's own task.

python benchmarks/train_step.py [--height=512 --width=512] [--dtype=bfloat16] [--xla]

1000 given proposals, 20 objects, 512 RoIs of which 128 are positive; momentum SGD. With nothing
frozen batch norms learn; else norms are frozen as the experiment has them. Prints one JSON line.
"""

import argparse
import time

import network
import scene
import timing


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1344)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--freeze_at", type=int, default=0, help="0: batch norms learn")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--preset", default="torchvision", help="whose conventions")
    parser.add_argument("--proposals", type=int, default=scene.PROPOSALS)
    parser.add_argument("--objects", type=int, default=scene.OBJECTS)
    parser.add_argument("--classes", type=int, default=scene.CLASSES, help="with background")
    parser.add_argument("--xla", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    network.set_dtype(args.dtype)
    norm = "frozen_batch_norm" if args.freeze_at else "batch_norm"
    config = network.experiment(
        preset=args.preset,
        norm=norm,
        freeze_at=args.freeze_at,
        classes=args.classes,
        proposals=args.proposals,
    )
    start = time.perf_counter()
    step = network.training_step(
        config, args.height, args.width, args.batch, args.objects, xla=args.xla
    )
    traced = time.perf_counter()
    losses = [step.run()]
    first = time.perf_counter()
    taken = timing.in_turn({"step": lambda: losses.append(step.run())}, args.rounds)
    timing.print_line(
        benchmark="train_step",
        contestant="ours",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        start_up_s={
            "build": round(step.build_seconds, 2),
            "trace": round(traced - start - step.build_seconds, 2),
            "first_step": round(first - traced, 2),
        },
        positives=step.positives,
        losses=[round(loss, 4) for loss in losses],
        peak_mib=timing.peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
