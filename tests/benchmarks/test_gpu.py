"""What is written for a GPU computes what TensorFlow computes."""

import importlib.util
import json
import os
import sys

import gpu
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.experiment.experiment import Task
from mrcnn_tf.training.task import MaskRCNNTask
from tests import tiny_network

# The Python of an environment with JAX; this one's, if it is here.
JAX = os.environ.get("JAX_PYTHON") or (importlib.util.find_spec("jax") and sys.executable)


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """A step with momentum, written; what TensorFlow makes of the weights; the loss."""
    model = tiny_network.build_network()
    batch = tiny_network.batch([tiny_network.TWO_OBJECTS])
    task = MaskRCNNTask(Task(model=tiny_network.config()))
    optimizer = tf_keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(model.trainable_variables)
    step = tf.function(
        lambda inputs: task.train_step(inputs, model, optimizer),
        jit_compile=True,
        autograph=False,
    )
    folder = tmp_path_factory.mktemp("lowered")
    gpu.write_module(step, (batch,), folder / "exact", exact=True)
    gpu.write_module(step, (batch,), folder / "drawn", exact=False)
    loss = float(step(batch)["loss"])
    return folder, [v.numpy() for v in model.trainable_variables], loss


@pytest.mark.slow
def test_inputs_are_written_in_the_order_of_parameters(lowered):
    folder, weights, _ = lowered
    arrays = gpu.read_inputs(folder / "exact")
    described = json.loads((folder / "exact" / "inputs.json").read_text())
    assert [list(array.shape) for array in arrays] == [about["shape"] for about in described]
    batch = tf.nest.flatten(tiny_network.batch([tiny_network.TWO_OBJECTS]))
    for array, tensor in zip(arrays, batch, strict=False):
        np.testing.assert_array_equal(array, tensor.numpy())
    shapes = [array.shape for array in arrays[len(batch) :]]
    for weight in weights:
        assert weight.shape in shapes


def test_large_weights_are_drawn_with_their_mean_and_deviation(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SMALL", 100)
    large = tf.Variable(tf.random.stateless_normal([64, 64], [1, 2], mean=3.0, stddev=0.5))
    constant, small = tf.Variable(tf.fill([40, 40], 0.25)), tf.Variable([1.0, 2.0])
    function = tf.function(
        lambda x: tf.reduce_sum(large) * x + tf.reduce_sum(constant) + tf.reduce_sum(small),
        jit_compile=True,
        autograph=False,
    )
    gpu.write_module(function, (tf.constant(2.0),), tmp_path, exact=False)
    first, *captured = gpu.read_inputs(tmp_path)
    by_shape = {array.shape: array for array in captured}
    assert first == 2.0
    assert abs(by_shape[64, 64].mean() - 3) < 0.05
    assert abs(by_shape[64, 64].std() - 0.5) < 0.05
    assert not np.array_equal(by_shape[64, 64], large.numpy())
    np.testing.assert_array_equal(by_shape[40, 40], 0.25)
    np.testing.assert_array_equal(by_shape[2,], [1, 2])


CONTESTANT = """
import sys, timing
name, log = sys.argv[1:]
note = lambda what: open(log, "a").write(f"{name} {what}\\n")
note("starts")
if name == "broken":
    sys.exit("out of memory")
timing.in_turn({"call": lambda: note("runs")}, rounds=2)
print(f"result of {name}")
"""


def test_contestants_get_ready_side_by_side_and_run_in_turn(tmp_path, capsys):
    log, script = tmp_path / "log", tmp_path / "contestant.py"
    script.write_text(CONTESTANT)
    commands = [[sys.executable, script, name, log] for name in ("first", "broken", "last")]
    environment = os.environ | {"WAIT_FOR_TURN": "1", "PYTHONPATH": os.path.dirname(gpu.__file__)}
    with pytest.raises(SystemExit, match=r"^These failed:\n\S+ \S+ broken \S+$"):
        gpu.in_turn(commands, environment)
    happened = log.read_text().splitlines()
    # Each starts and warms up once before anybody's turn.
    assert sorted(happened[:5]) == [
        "broken starts", "first runs", "first starts", "last runs", "last starts",
    ]  # fmt: skip
    assert happened[5:] == ["first runs"] * 2 + ["last runs"] * 2
    assert capsys.readouterr().out == "result of first\nresult of last\n"


@pytest.mark.slow
@pytest.mark.skipif(not JAX, reason="no JAX here, and JAX_PYTHON names no Python that has it")
def test_jax_takes_the_step_that_tensorflow_takes(lowered, tmp_path, measure):
    folder, weights, loss = lowered
    [line] = measure(
        "gpu.py", "time", f"--folder={folder / 'exact'}", "--rounds=1",
        f"--outputs={tmp_path / 'out.npz'}", python=JAX,
    )  # fmt: skip
    assert line["finite"]
    with np.load(tmp_path / "out.npz") as outputs:
        arrays = list(outputs.values())
    assert float(arrays[0]) == pytest.approx(loss, rel=1e-6)
    for weight in weights:
        of_shape = [array for array in arrays[1:] if array.shape == weight.shape]
        assert min(np.abs(array - weight).max() for array in of_shape) < 1e-6
