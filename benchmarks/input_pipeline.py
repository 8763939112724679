"""Images per second of our training input by itself: records to batches of 800 x 1333 (CPU).

python benchmarks/input_pipeline.py

Records of pictures of 480 x 640 with 7.3 objects each (`synthetic_coco.py`), converted by the
command that a user types, read as `maskrcnn_r50_fpn` reads them: decoded, flipped, resized,
normalised, padded, two to a batch. Prints one JSON line.
"""

import argparse
import pathlib
import subprocess
import tempfile

import coco_size
import network  # noqa: F401  # puts the project on the path
import synthetic_coco
import timing

from mrcnn_tf.experiment import loading
from mrcnn_tf.training.task import MaskRCNNTask


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256, help="of the set, and of each round")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "coco"
        synthetic_coco.write(folder, args.images, size=(480, 640), pictures=64)
        command = coco_size.command(folder, num_shards=8)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        config = loading.load("maskrcnn_r50_fpn")
        data = config.task.train_data
        data.input_path = config.task.validation_data.input_path = f"{folder}/records/*.tfrecord"
        data.global_batch_size = args.batch
        batches = iter(MaskRCNNTask(config.task).build_inputs(data))

        def read_all():
            for _ in range(args.images // args.batch):
                next(batches)

        taken = timing.in_turn({"round": read_all}, args.rounds)
    images = args.images // args.batch * args.batch
    timing.print_line(
        benchmark="input_pipeline",
        contestant="ours",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        images_per_s=round(images / taken["round"].median, 1),
        peak_mib=timing.peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
