"""devices.py: what machines bring into a run; two real ones are in end_to_end/test_workers.py."""

import pytest
import tensorflow as tf

from mrcnn_tf.training import devices
from mrcnn_tf.training.workers import Workers


def test_what_a_machine_has():
    assert devices.describe_replicas(0) == "1 CPU"
    assert devices.describe_replicas(1) == "1 GPU"
    assert devices.describe_replicas(8) == "8 GPUs"
    assert devices.describe(tf.distribute.MirroredStrategy(["CPU:0"])) == "1 CPU"


def test_machines_with_other_gpus_are_refused_by_name():
    workers = Workers()
    workers.hosts = ["a:1", "b:2", "c:3"]
    devices.check_equal(workers, ["8 GPUs"] * 3)
    with pytest.raises(ValueError, match="every machine of a run needs as many GPUs") as error:
        devices.check_equal(workers, ["8 GPUs", "7 GPUs", "8 GPUs"])
    assert str(error.value).splitlines()[1:] == [
        "  worker 1 (b:2) has 7 GPUs; the chief has 8 GPUs"
    ]
    with pytest.raises(ValueError, match="worker 2 .* has 1 CPU; the chief has 1 GPU"):
        devices.check_equal(workers, ["1 GPU", "1 GPU", "1 CPU"])
