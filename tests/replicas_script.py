"""Two pictures on one device or one on each of two: prints what both ways of training give.

A process of its own, because TensorFlow has to be told before it starts how many devices a CPU is.

    python -m tests.replicas_script {eager|graph|compiled} {square|landscape|portrait}
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
import tf_keras

from mrcnn_tf import configs
from mrcnn_tf import task as task_lib
from tests import tiny_network
from tests.tiny_network import EMPTY, TWO_OBJECTS, Object, Picture

STEPS = 2
WIDE = Picture((62, 96), [Object((5, 40, 50, 88), 2)], key=31)
TALL = Picture((96, 60), [Object((30, 8, 90, 44), 3, has_notch=True)], key=32)
CASES = {
    "square": ([TWO_OBJECTS, EMPTY], (64, 64)),
    "landscape": ([EMPTY, WIDE], (64, 96)),
    "portrait": ([TALL, EMPTY], (96, 64)),
}


def train(strategy, num_replicas: int, mode: str, case: str):
    """Return the reported losses of each step and the weights after all of them."""
    config = configs.Task(model=tiny_network.config())
    task = task_lib.MaskRCNNTask(config, weight_decay=1e-2, compiled=mode == "compiled")
    pictures, canvas_hw = CASES[case]
    share = len(pictures) // num_replicas

    def of_replica(context):
        first = context.replica_id_in_sync_group * share
        return tiny_network.batch(pictures[first : first + share], canvas_hw)

    with strategy.scope():
        model = tiny_network.build_network(config.model, compiled=mode == "compiled")
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
    return history, [variable.numpy() for variable in model.trainable_variables]


def main(mode: str, case: str) -> None:
    """Print one JSON line: losses of both ways and the largest difference of the weights."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, weights = train(tf.distribute.OneDeviceStrategy("CPU:0"), 1, mode, case)
    devices = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two, weights_of_two = train(devices, 2, mode, case)
    largest = max(np.abs(w).max() for w in weights)
    pairs = zip(weights, weights_of_two, strict=True)
    difference = max(np.abs(a - b).max() for a, b in pairs)
    print(json.dumps({"one": one, "two": two, "difference": float(difference / largest)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
