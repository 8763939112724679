"""Two images on one device or one on each of two: prints what both ways of training give.

A process of its own, because TensorFlow has to be told before it starts how many devices a CPU is.

    python -m tests.training.replicas_script {eager|graph|compiled} CASE NORM

In the case "parts" there are four images, and each of two devices has its two one after the other.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment import fields
from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.training import decay
from mrcnn_tf.training import task as task_lib
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, WITH_CROWD, Image, Object

STEPS = 2
WIDE = Image((62, 96), [Object((5, 40, 50, 88), 2)], key=31)
TALL = Image((96, 60), [Object((30, 8, 90, 44), 3, has_notch=True)], key=32)
CASES = {
    "square": ([TWO_OBJECTS, EMPTY], (64, 64)),
    "landscape": ([EMPTY, WIDE], (64, 96)),
    "portrait": ([TALL, EMPTY], (96, 64)),
    "parts": ([EMPTY, TWO_OBJECTS, WITH_CROWD, WIDE], (64, 96)),
}


def networks(norm: str) -> dict[str, fields.Model]:
    """An RPN, and detectors on given proposals: together all losses there are.

    Neither ranks boxes by what it computes. In a joint network the last bit of a score or of a box
    decides which of two near ties survives NMS, and with it what the detector learns from.
    """
    rpn, detector = tiny_network.config(norm), tiny_network.config(norm)
    rpn.override({"system": "rpn"})
    detector.override({"proposals": "file"})
    federated = tiny_network.config(norm)
    federated.override({"proposals": "file", "federated": {"classes_per_image": 3}})
    return {"rpn": rpn, "detector": detector, "federated": federated}


def train(strategy, num_replicas: int, mode: str, case: str, config: fields.Model):
    """Return the reported losses of each step, and weights and statistics after all of them."""
    data = fields.Data(is_training=True)
    if case == "parts" and num_replicas == 2:
        data.override({"images_per_replica": 1, "images_per_update": 4})
    task = task_lib.MaskRCNNTask(
        Task(model=config, train_data=data),
        weight_decay=decay.Decay(1e-2, 1e-3, 2.0),
        enable_xla=mode == "compiled",
    )
    images, canvas_hw = CASES[case]
    share = len(images) // num_replicas

    def of_replica(context):
        first = context.replica_id_in_sync_group * share
        rows = images[first : first + share]
        batch = tiny_network.batch(rows, canvas_hw)
        if config.proposals == "file":
            batch |= tiny_network.proposals_near_objects(rows, 4)
        return batch

    with strategy.scope():
        model = tiny_network.build_network(config)
        # Weak features, or the first step of random heads is so large that the second loss shows
        # the last bit of every gradient a hundred times enlarged.
        for variable in model.pyramid.trainable_variables:
            variable.assign(variable / 4)
        optimizer = tf_keras.optimizers.SGD(0.002, momentum=0.9)
        optimizer.build(model.trainable_variables)
        metrics = task.build_metrics()
    batch = strategy.experimental_distribute_values_from_function(of_replica)

    def step(batch):
        return strategy.run(task.train_step, args=(batch, model, optimizer, metrics))

    step = step if mode == "eager" else tf.function(step, autograph=False)
    history = []
    for _ in range(STEPS):
        loss = strategy.reduce("mean", step(batch)["loss"], axis=None)
        history.append({"loss": float(loss)} | {m.name: float(m.result()) for m in metrics})
        for metric in metrics:
            metric.reset_state()
    weights = [variable.numpy() for variable in model.trainable_variables]
    statistics = [v.numpy() for v in model.non_trainable_variables if "moving" in v.name]
    return history, weights, statistics


def difference(one: list[np.ndarray], two: list[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest entry."""
    largest = max(np.abs(values).max() for values in one)
    return float(max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) / largest)


def main(mode: str, case: str, norm: str) -> None:
    """Print a JSON line: losses of both ways and how far weights and statistics differ."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    # One replica of the strategy that trains on one GPU too. Each strategy once: those of a process
    # number their exchanges alike, and two over the same devices would mistake each other's.
    alone = tf.distribute.MirroredStrategy(["CPU:2"])
    together = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    compared = {}
    for name, config in networks(norm).items():
        if name == "federated" and case != "parts":  # in its other parts the same detector
            continue
        one = train(alone, 1, mode, case, config)
        two = train(together, 2, mode, case, config)
        compared[name] = {
            "one": one[0],
            "two": two[0],
            "weights": difference(one[1], two[1]),
            "statistics": difference(one[2], two[2]),
        }
    print(json.dumps(compared))


if __name__ == "__main__":
    main(*sys.argv[1:])
