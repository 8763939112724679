"""Drawn images of 64 x 64 and a network with which a training step takes milliseconds."""

import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENT = "maskrcnn_shapes"
_DATA = {"short_edges": [64], "long_edge": 64}
_MODEL = {
    "backbone": {"base_width": 8},
    "fpn": {"channels": 16},
    "box_head": {"fc_channels": 32, "rois_per_image": 16},
    "mask_head": {"conv_layers": 1, "conv_channels": 8},
    "rpn": {
        "pre_nms_top_k_train": 50,
        "pre_nms_top_k_test": 50,
        "post_nms_top_k_train": 50,
        "post_nms_top_k_test": 20,
    },
    "max_instances": 20,
    "detection": {"score_threshold": 0.0},
}


def make(folder: pathlib.Path, num_train: int, num_val: int) -> None:
    """Draw images and convert them, unless that is done: `coco/` and `records/` in `folder`."""
    if not (folder / "coco").exists():
        _run(
            "create_shapes_coco",
            f"--output_dir={folder}/coco",
            f"--num_train={num_train}",
            f"--num_val={num_val}",
            "--image_size=64",
        )
    for split in ("train", "val"):
        _run(
            "create_coco_tfrecord",
            f"--image_dir={folder}/coco/{split}",
            f"--object_annotations_file={folder}/coco/annotations/instances_{split}.json",
            f"--output_file_prefix={folder}/records/{split}",
            "--num_shards=2",
        )


def _run(name: str, *flags: str) -> None:
    command = [sys.executable, f"data_prep/{name}.py", *flags]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def fields(folder: pathlib.Path, trainer: dict[str, Any]) -> dict[str, Any]:
    """The tiny experiment on the records of `make`, for `--params_override`.

    Args:
      folder: as there.
      trainer: its schedule.
    """
    train = {"input_path": f"{folder}/records/train-*.tfrecord", "global_batch_size": 2, **_DATA}
    val = {"input_path": f"{folder}/records/val-*.tfrecord", "global_batch_size": 2, **_DATA}
    return {
        "task": {"model": _MODEL, "train_data": train, "validation_data": val},
        "trainer": {"reference_batch_size": 2, **trainer},
    }
