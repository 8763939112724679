"""TensorFlow without Keras 3, in fresh interpreters: what is imported cannot be taken back."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_keras_stays_out_until_it_is_wanted():
    found = run("""
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from mrcnn_tf.console import start_tensorflow
with start_tensorflow.quickly():
    import tensorflow as tf
import gc
print("keras" in sys.modules, gc.isenabled())
print(float(tf.function(lambda x: x + 1)(tf.constant(1.0))))
print(tf.keras.layers.Dense(3)(tf.ones([2, 2])).shape[1])
import tf_keras
print(tf_keras.layers.Dense(4)(tf.ones([2, 2])).shape[1])
""")
    assert found == ["False", "True", "2.0", "3", "4"]


@pytest.mark.parametrize("module", ["mrcnn_tf.predict", "data_prep.create_coco_tfrecord"])
def test_commands_that_need_no_keras_import_none(module):
    found = run(f"""
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import {module} as command
if hasattr(command, "start_tensorflow"):
    with command.start_tensorflow.quickly():
        import data_prep.conversion
print(*{{name.split(".")[0] for name in sys.modules}} & {{"keras", "tf_keras", "tensorflow"}})
""")
    assert found == ["tensorflow"]
