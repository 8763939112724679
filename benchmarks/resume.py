"""Seconds until the first batch of a run that goes on: records to that batch (CPU).

python benchmarks/resume.py
python benchmarks/resume.py --experiment=cascade_maskrcnn_r50_fpn  # several short edges

Writes records of tiny pictures of several shapes, and asks an experiment's input for the batch
after `--step` steps of 16 images, as a run does that was stopped there: once without an index of
the records, once with the one that the first time left. Prints one JSON line.
"""

import argparse
import pathlib
import tempfile
import time

import network  # noqa: F401  # puts the project on the path
import numpy as np
import tensorflow as tf
import timing

from mrcnn_tf.data import schema
from mrcnn_tf.experiment import loading
from mrcnn_tf.training.task import MaskRCNNTask

_SIZES_HW = ((30, 40), (40, 30), (30, 53), (53, 30))
_SHARDS = 16


def main() -> None:
    """Print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="maskrcnn_r50_fpn")
    parser.add_argument("--records", type=int, default=118_000)
    parser.add_argument("--step", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        _write(pathlib.Path(name), args.records)
        config = loading.load(args.experiment, params_override="task.model.num_classes=2")
        data = config.task.train_data
        data.input_path = config.task.validation_data.input_path = f"{name}/*.tfrecord"
        data.global_batch_size = args.batch
        task = MaskRCNNTask(config.task)

        def seconds(first_step: int) -> float:
            start = time.perf_counter()
            next(iter(task.build_inputs(data, first_step=first_step)))
            return round(time.perf_counter() - start, 2)

        timing.print_line(
            benchmark="resume",
            contestant="ours",
            args=vars(args),
            seconds={
                "first start": seconds(0),
                "start": seconds(0),
                f"after step {args.step}": seconds(args.step),
            },
            peak_mib=timing.peak_memory_mib(),
        )


def _write(folder: pathlib.Path, count: int) -> None:
    """Write records of black pictures with one object each, in turn over the files."""
    features = []
    for height, width in _SIZES_HW:
        encoded = tf.io.encode_jpeg(np.zeros([height, width, 3], np.uint8)).numpy()
        feature = {schema.IMAGE_ENCODED: _bytes(encoded)}
        columns = (schema.BBOX_YMIN, 0.1), (schema.BBOX_XMIN, 0.1)
        for key, value in (*columns, (schema.BBOX_YMAX, 0.9), (schema.BBOX_XMAX, 0.9)):
            feature[key] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        feature[schema.CLASS_LABEL] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
        features.append(feature)
    writers = [
        tf.io.TFRecordWriter(str(folder / f"train-{k:05d}-of-{_SHARDS:05d}.tfrecord"))
        for k in range(_SHARDS)
    ]
    shapes = np.random.default_rng(0).integers(len(features), size=count)
    for number, shape in enumerate(shapes):
        feature = features[shape] | {schema.IMAGE_SOURCE_ID: _bytes(str(number).encode())}
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        writers[number % _SHARDS].write(example.SerializeToString(deterministic=True))
    for writer in writers:
        writer.close()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


if __name__ == "__main__":
    main()
