"""Seconds and memory of the ground truth that an evaluation reads, from both of its sources (CPU).

python benchmarks/ground_truth.py [--images=5000]

A synthetic COCO folder (`synthetic_coco.py`), converted by the command that a user types; then its
annotation file and its records are read as an evaluation reads them, masks included, and have to
hold the same objects. Prints one JSON line; `added_mib` is what the process's resident memory has
grown by while it holds that source's.
"""

import argparse
import gc
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import coco_size
import network  # noqa: F401  # puts the project on the path
import synthetic_coco
import timing

from mrcnn_tf.data.label_map import LabelMap
from mrcnn_tf.evaluation import ground_truth


def resident_mib() -> float:
    """Of this process, now."""
    return coco_size.memory_of(os.getpid())[os.getpid()]


def measured(read: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what a function reads, and what that took."""
    gc.collect()
    before, start = resident_mib(), time.perf_counter()
    found = read()
    seconds = time.perf_counter() - start
    return found, {"seconds": round(seconds, 3), "added_mib": round(resident_mib() - before, 1)}


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "coco"
        objects = synthetic_coco.write(folder, args.images)
        command = coco_size.command(folder, num_shards=8)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        annotations = str(folder / "annotations.json")
        label_map = LabelMap.from_json((folder / "records" / "label_map.json").read_text())
        pattern = str(folder / "records" / "train-*.tfrecord")
        of_file, file_took = measured(lambda: ground_truth.from_annotation_file(annotations))
        of_records, records_took = measured(lambda: ground_truth.from_records(pattern, label_map))
    if not len(of_file["annotations"]) == len(of_records["annotations"]) == objects:
        sys.exit("error: the two sources hold different numbers of objects")
    timing.print_line(
        benchmark="ground_truth",
        contestant="ours",
        args=vars(args),
        objects=objects,
        annotation_file=file_took,
        records=records_took,
        peak_mib=timing.peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
