"""Images per second of our training input by itself: records to batches of 800 x 1333 (CPU).

python benchmarks/input_pipeline.py

Records of pictures of 480 x 640 with 7.3 objects each (`synthetic_coco.py`), converted by the
command that a user types, read as `maskrcnn_r50_fpn` reads them: decoded, flipped, resized,
normalised, padded, two to a batch. Prints one JSON line.

python benchmarks/input_pipeline.py --experiment=maskrcnn_r50_fpn_lsj \
  --against=maskrcnn_r50_fpn_lsj_copypaste

reads as two experiments do, in turn: what copy-paste costs. Each turn begins a pipeline of its own,
reads until its buffers and its parallel calls have settled, and ends it: one that waited beside the
other would fill its buffers during the other's turn.
"""

import argparse
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

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
    parser.add_argument("--experiment", default="maskrcnn_r50_fpn")
    parser.add_argument("--against", help="another experiment, in turn with the first")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "coco"
        synthetic_coco.write(folder, args.images, size=(480, 640), pictures=64)
        command = coco_size.command(folder, num_shards=8)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        names = [args.experiment] + ([args.against] if args.against else [])
        readers = {name: _Reader(name, folder, args.batch, args.images) for name in names}
        taken = timing.in_turn(
            {name: reader.read for name, reader in readers.items()},
            args.rounds,
            before_each=lambda name: readers[name].begin(),
        )
    images = args.images // args.batch * args.batch
    timing.print_line(
        benchmark="input_pipeline",
        contestant="ours",
        args=vars(args),
        seconds={name: runs.summary() for name, runs in taken.items()},
        images_per_s=round(images / taken[args.experiment].median, 1),
        times_as_long={
            name: round(runs.median / taken[args.experiment].median, 2)
            for name, runs in taken.items()
        },
        peak_mib=timing.peak_memory_mib(),
    )


class _Reader:
    """Reads the images of `folder` as an experiment does."""

    def __init__(self, experiment: str, folder: pathlib.Path, batch: int, images: int) -> None:
        config = loading.load(experiment)
        data = config.task.train_data
        data.input_path = config.task.validation_data.input_path = f"{folder}/records/*.tfrecord"
        data.global_batch_size = batch
        self._dataset = MaskRCNNTask(config.task).build_inputs(data)
        self._count = images // batch
        self._batches: Iterator[object] | None = None

    def begin(self) -> None:
        """Read what does not count."""
        self._batches = iter(self._dataset)
        self._take()

    def read(self) -> None:
        """Read what counts, and stop."""
        self._take()
        self._batches = None

    def _take(self) -> None:
        assert self._batches is not None
        for _ in range(self._count):
            next(self._batches)


if __name__ == "__main__":
    main()
