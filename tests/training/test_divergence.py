import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.training import divergence

TERMS = ("box_loss", "mask_loss")


def ids(*texts):
    rows = np.zeros([len(texts), schema.SOURCE_ID_BYTES], np.uint8)
    for row, text in zip(rows, texts, strict=True):
        encoded = text.encode()
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return tf.constant(rows)


def record_of(mode):
    record = divergence.FirstDivergence(TERMS, images_per_replica=2)
    update = record.update
    if mode != "eager":
        update = tf.function(update, autograph=False, jit_compile=mode == "compiled")

    def see(step, box, mask, source_ids):
        losses = {"box_loss": tf.constant(box), "mask_loss": tf.constant(mask)}
        update(tf.constant(step, tf.int64), losses, source_ids)

    return record, see


@pytest.mark.parametrize("mode", ["eager", "graph", "compiled"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_step_stays(mode, value):
    record, see = record_of(mode)
    strategy = tf.distribute.get_strategy()
    see(4, 1.0, 2.0, ids("1", "2"))
    assert record.describe(strategy) == ""
    see(5, 1.0, value, ids("391895", "schön/bild 7"))
    see(6, value, value, ids("3", "4"))
    see(7, 1.0, 1.0, ids("5", "6"))
    assert record.describe(strategy) == (
        "not finite at step 5: mask_loss; images 391895, schön/bild 7"
    )


def test_reset_begins_anew():
    record, see = record_of("eager")
    strategy = tf.distribute.get_strategy()
    see(5, 1.0, float("nan"), ids("1", "2"))
    record.reset()
    assert record.describe(strategy) == ""
    see(9, float("nan"), float("nan"), ids("3", "4"))
    text = record.describe(strategy)
    assert text.startswith("not finite at step 9: box_loss, mask_loss; images 3, 4")
    assert "All terms at once" in text


TWO_REPLICAS = """
import tensorflow as tf
from mrcnn_tf.training import divergence
from tests.training.test_divergence import TERMS, ids

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    record = divergence.FirstDivergence(TERMS, images_per_replica=1)

@tf.function(autograph=False)
def step(number, losses, rows):
    def of_replica(losses, rows):
        record.update(number, {"box_loss": losses, "mask_loss": tf.constant(0.0)}, rows)
    strategy.run(of_replica, args=(losses, rows))

def spread(values):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(values[context.replica_id_in_sync_group]))

nan = float("nan")
record.reset()
for number, values, names in ((1, (1.0, 1.0), "ab"), (2, (1.0, nan), "cd"), (3, (nan, nan), "ef")):
    step(tf.constant(number, tf.int64), spread(values), spread([ids(name) for name in names]))
print(record.describe(strategy))
record.reset()
print(repr(record.describe(strategy)))
"""


def test_of_two_replicas_the_one_that_failed_first_is_named():
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-2:] == ["not finite at step 2: box_loss; images d", "''"]
