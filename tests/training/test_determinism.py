"""determinism.py; tests/end_to_end/test_faults.py holds the bits of two runs against each other."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions

from mrcnn_tf.training import determinism

# In a process of its own: TensorFlow cannot be told again to forget it.
SCRIPT = """
import numpy as np
import tensorflow as tf
from official.core import config_definitions
from mrcnn_tf.training import determinism

determinism.enable(config_definitions.RuntimeConfig())
table = tf.Variable(tf.ones([3, 1]))

@tf.function(autograph=False)
def gradients(x, index):
    with tf.GradientTape() as tape:
        tape.watch(x)
        used = [x * factor for factor in (1e8, 1.0, -1e8, 1.0)]
        rows = [tf.gather(table, index), 2 * tf.gather(table, index)]
        loss = tf.reduce_sum(tf.concat(used, 0)) + tf.reduce_sum(tf.concat(rows, 0))
    return tape.gradient(loss, [x, table])

x, index = tf.constant([[1.0]]), tf.constant([2, 0, 2])
types = [op.type for op in gradients.get_concrete_function(x, index).graph.get_operations()]
assert "AddN" not in types, types
of_x, of_table = gradients(x, index)
print(tf.convert_to_tensor(of_table).numpy().ravel().tolist())
orders = {tuple(float(g) for g in gradients(x, index)[0].numpy().ravel()) for _ in range(20)}
print(len(orders), next(iter(orders))[0] in (0.0, 1.0, 2.0))
"""


def test_a_tape_adds_up_in_order():
    """What is used several times, and rows of a table, whose gradients are indexed slices."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["[3.0, 0.0, 6.0]", "1 True"]


def test_sums_begin_with_the_first():
    """1e8 + 1 is 1e8 in float32."""
    terms = [tf.constant(value, tf.float32) for value in (1e8, 1.0, -1e8)]
    assert determinism.sum_in_order(terms).numpy() == np.float32(0.0)
    assert determinism.sum_in_order([terms[0], terms[2], terms[1]]).numpy() == np.float32(1.0)
    assert determinism.sum_in_order(terms[:1]) is terms[0]


def test_several_machines_on_cpus_need_tensorflow_without_onednn(monkeypatch):
    """Refused before anything is switched on, so that this process stays as it is."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(determinism.test_util, "IsMklEnabled", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    runtime = config_definitions.RuntimeConfig(
        distribution_strategy="multi_worker_mirrored", worker_hosts="a:1,b:1", task_index=1
    )
    with pytest.raises(ValueError, match="TF_ENABLE_ONEDNN_OPTS=0"):
        determinism.enable(runtime)
