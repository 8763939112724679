"""A run whose records, annotations and folder lie in TensorFlow's file system in memory.

python -m tests.end_to_end.ram_script OVERRIDE SHAPES
"""

import json
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.experiment import loading

DATA = "ram://data/my [new] shapes"
RUN = "ram://runs/first run"


def main(override: str, shapes: str) -> None:
    """Train two steps and evaluate; then again, which finds nothing to do; then only score."""
    tf.io.gfile.makedirs(DATA)
    for path in pathlib.Path(shapes, "records").iterdir():
        tf.io.gfile.copy(str(path), f"{DATA}/{path.name}")
    annotations = pathlib.Path(shapes, "coco/annotations/instances_val.json")
    tf.io.gfile.copy(str(annotations), f"{DATA}/val.json")
    fields = json.loads(override) | {
        "task.train_data.input_path": f"{DATA}/train-*.tfrecord",
        "task.validation_data.input_path": f"{DATA}/val-*.tfrecord",
        "task.annotation_file": f"{DATA}/val.json",
        "trainer.train_steps": 2,
    }
    experiment = loading.load("maskrcnn_shapes", params_override=json.dumps(fields))
    numbers = train.run(experiment, "train_and_eval", RUN)
    assert train.run(experiment, "train_and_eval", RUN)["box_ap"] == numbers["box_ap"]
    again = train.run(loading.load(f"{RUN}/params.yaml"), "eval", RUN, f"{RUN}/ckpt-2")
    assert abs(again["box_ap"] - numbers["box_ap"]) < 1e-6


if __name__ == "__main__":
    main(*sys.argv[1:])
