"""AdamW on one replica and on two that share the gradient: prints {type: weights of both}.

A process of its own, because TensorFlow has to be told before it starts how many devices a CPU is.

    python -m tests.training.adamw_script
"""

import json
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf

from mrcnn_tf.experiment import loading
from mrcnn_tf.training import optimizers

# The parts of two replicas: their norms are 5 and 0.5, that of their sum is about 5.1.
PARTS = ([3.0, 4.0], [0.5, 0.0])


def weights_after(strategy, parts, dtype):
    """Two steps of gradients that are clipped to 1."""
    fields = {
        "optimizer.type": "adamw",
        "learning_rate.type": "constant",
        "learning_rate.constant.learning_rate": 0.1,
        "warmup.type": None,
    }
    fields = {f"trainer.optimizer_config.{name}": value for name, value in fields.items()}
    experiment = loading.load("maskrcnn_shapes", params_override=json.dumps(fields))
    experiment.runtime.mixed_precision_dtype = dtype
    with strategy.scope():
        optimizer = optimizers.create(experiment.trainer, experiment.runtime)
        kernel = tf.Variable([1.0, 1.0], name="kernel")

    def step(scale):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = scale * tf.gather(tf.constant(parts), replica)
        optimizer.apply_gradients([(gradient, kernel)])

    for scale in (1.0, 0.01):  # not clipped the second time
        tf.function(lambda scale=scale: strategy.run(step, (scale,)))()
    return kernel.numpy().tolist()


def main():
    """Print a JSON line."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
    alone = tf.distribute.MirroredStrategy(["CPU:2"])
    together = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    whole = [[a + b for a, b in zip(*PARTS, strict=True)]]
    compared = {
        dtype: (weights_after(alone, whole, dtype), weights_after(together, PARTS, dtype))
        for dtype in ("float32", "float16")
    }
    print(json.dumps(compared))


if __name__ == "__main__":
    main()
