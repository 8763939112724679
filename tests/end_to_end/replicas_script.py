"""Half a run on one replica, the rest on two: a process that sees two CPUs.

python -m tests.end_to_end.replicas_script OVERRIDE FOLDER FIELDS
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf

from mrcnn_tf import train
from mrcnn_tf.experiment import loading

FIELDS = {
    "task.train_data.global_batch_size": 0,
    "task.train_data.images_per_replica": 1,
    "task.validation_data.global_batch_size": 3,
    "trainer.reference_batch_size": 1,
    "trainer.optimizer_config.learning_rate.type": "stepwise",
    "trainer.optimizer_config.learning_rate.stepwise.boundaries": [6],
    "trainer.optimizer_config.learning_rate.stepwise.values": [0.01, 0.001],
    "trainer.optimizer_config.warmup.type": None,
    "trainer.optimizer_config.optimizer.type": "sgd",
    "trainer.validation_interval": 8,
}


def main(override: str, folder: str, differs: str) -> None:
    """Train four images and stop, go on to eight."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    for steps, devices in ((4, ["CPU:0"]), (8, ["CPU:0", "CPU:1"])):
        fields = json.loads(override) | FIELDS | json.loads(differs)
        fields |= {"trainer.train_steps": steps}
        experiment = loading.load("maskrcnn_shapes", params_override=json.dumps(fields))
        strategy = tf.distribute.MirroredStrategy(devices)
        mode = "train" if steps == 4 else "train_and_eval"
        numbers = train.run(experiment, mode, f"{folder}/run", strategy=strategy)
        assert ("mask_ap" in numbers) == (steps == 8)


if __name__ == "__main__":
    main(*sys.argv[1:])
