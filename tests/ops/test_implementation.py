"""Which implementation runs where. What each of them computes is tested beside its operation."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import implementation, nms, roi_align
from tests.marks import one_quick

which = implementation.Either(
    for_accelerators=lambda x: x + tf.constant(1.0), for_cpus=lambda x: x - tf.constant(1.0)
)
ACCELERATORS, CPUS = 1.0, -1.0
ZERO = tf.constant(0.0)


@tf.custom_gradient
def both_ways(x):
    """Answer what the forward pass takes; the gradient is what it takes itself."""
    gradient = which.here()
    return which(x), lambda upstream: gradient(tf.zeros_like(upstream))


def gradient_of(function):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    return gradient


def in_a_loop(x):
    return tf.while_loop(lambda i, x: i < 1, lambda i, x: (i + 1, which(x)), (0, x))[1]


def in_a_map(x):
    return tf.map_fn(which, x[tf.newaxis])[0]


def in_a_function(x):
    return tf.function(which)(x)


PLACES = [
    which,
    both_ways,
    gradient_of(both_ways),
    in_a_loop,
    in_a_map,
    in_a_function,
    tf.recompute_grad(which),
]


@pytest.mark.parametrize("place", PLACES)
def test_under_xla_the_one_for_accelerators(place):
    compiled = tf.function(place, jit_compile=True)
    assert compiled(ZERO) == ACCELERATORS
    ops = {op.type for op in compiled.get_concrete_function(ZERO).graph.get_operations()}
    assert not ops & {"DeviceIndex", "StatelessCase", "Case"}  # decided when it was traced


def test_the_gradient_of_a_compiled_function_is_compiled_too(monkeypatch):
    """As several replicas train: the tape stands outside of what XLA compiles."""
    monkeypatch.setattr(tf.raw_ops, "DeviceIndex", None)  # nobody is asked where it is
    gradient = gradient_of(tf.function(both_ways, jit_compile=True))
    assert gradient(ZERO) == ACCELERATORS
    assert tf.function(gradient)(ZERO) == ACCELERATORS


@pytest.mark.parametrize("sampling_ratio", [2, 0])
def test_the_gradient_of_a_compiled_roi_align_compiles(sampling_ratio):
    boxes = tf.constant([[[1.0, 2, 30, 50], [0, 0, 9, 60]]])
    align = tf.function(
        lambda f: roi_align.roi_align({2: f}, boxes, None, 3, sampling_ratio, True),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
        jit_compile=True,
    )
    feature = tf.random.stateless_normal([1, 12, 16, 3], [1, 2])
    want = gradient_of(align.python_function)(feature)
    got = tf.function(gradient_of(align), [align.input_signature[0]])(feature)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_eagerly_and_in_a_graph_on_a_cpu_the_one_for_cpus(place):
    assert place(ZERO) == CPUS
    with tf.device("CPU:0"):
        assert tf.function(place)(ZERO) == CPUS


def test_in_a_data_set_the_one_for_cpus():
    data = tf.data.Dataset.from_tensors(ZERO).map(which)
    assert next(iter(data)) == CPUS


def test_a_function_traced_before_and_then_compiled_is_the_one_for_accelerators():
    inner = tf.function(which, input_signature=[tf.TensorSpec([])])
    assert inner(ZERO) == CPUS
    assert tf.function(lambda x: inner(x), jit_compile=True)(ZERO) == ACCELERATORS


def test_force_ends_where_it_ends():
    with implementation.force(accelerators=True):
        assert which(ZERO) == ACCELERATORS
        with implementation.force(accelerators=False):
            assert which(ZERO) == CPUS
        assert tf.function(which)(ZERO) == ACCELERATORS
    assert which(ZERO) == CPUS
    with pytest.raises(KeyError), implementation.force(accelerators=True):
        raise KeyError
    assert which(ZERO) == CPUS


def pooled_and_gradient(sampling_ratio):
    def run(feature, boxes):
        with tf.GradientTape() as tape:
            tape.watch(feature)
            pooled = roi_align.roi_align({2: feature}, boxes, None, 3, sampling_ratio, True)
            loss = tf.reduce_sum(pooled * tf.range(1, 4, dtype=pooled.dtype))
        return pooled, tape.gradient(loss, feature)

    return run


def kept(feature, boxes):
    scores = tf.reshape(feature[:, :5, :4, 0], [-1, 20])
    return nms.nms(boxes, scores, tf.ones_like(scores, tf.bool), 0.3, 30)


@pytest.fixture
def elsewhere(monkeypatch):
    """What is traced answers as on a device of another kind: one that it finds in no list."""
    device_index = tf.raw_ops.DeviceIndex

    def another(device_names):
        assert device_names == ["CPU"]
        return device_index(device_names=["ANOTHER"])

    with monkeypatch.context() as patch:
        patch.setattr(tf.raw_ops, "DeviceIndex", another)
        yield


def test_on_another_device_the_one_for_accelerators(elsewhere):
    assert which(ZERO) == ACCELERATORS
    assert tf.function(in_a_loop)(ZERO) == ACCELERATORS
    assert tf.function(gradient_of(both_ways))(ZERO) == ACCELERATORS


@pytest.mark.parametrize("dtype", one_quick([tf.float32, tf.bfloat16]))
@pytest.mark.parametrize("run", [pooled_and_gradient(2), pooled_and_gradient(0), kept])
def test_on_another_device_the_graph_takes_its_other_branch(elsewhere, run, dtype):
    """The whole of an operation, gradient included; numbers as with that implementation alone."""
    rng = np.random.default_rng(0)
    feature = tf.cast(rng.standard_normal([2, 12, 16, 3]), dtype)
    boxes = np.sort(rng.uniform(-4, 60, [2, 20, 2, 2]), axis=2).reshape(2, 20, 4)
    args = feature, tf.constant(boxes, tf.float32)
    specs = [tf.TensorSpec([None, None, None, 3], dtype), tf.TensorSpec([None, None, 4])]
    either, accelerators, cpus = (tf.function(run, input_signature=specs) for _ in range(3))
    with implementation.force(accelerators=True):
        want = accelerators(*args)
    with implementation.force(accelerators=False):
        on_cpus = cpus(*args)
    for got, w, c in zip(either(*args), want, on_cpus, strict=True):
        np.testing.assert_array_equal(tf.cast(got, tf.float32), tf.cast(w, tf.float32))
        atol = 2e-5 if dtype == tf.float32 else 0.1
        np.testing.assert_allclose(tf.cast(c, tf.float32), tf.cast(w, tf.float32), atol=atol)
    concrete = either.get_concrete_function()
    ops = [op.type for op in concrete.graph.get_operations()]
    assert ops.count("DeviceIndex") == (1 if run is kept else 2)  # forward, backward
    known = [None, 30] if run is kept else [None, None, 3, 3, 3]
    assert concrete.structured_outputs[0].shape.as_list() == known  # although two branches make it


SCRIPT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", ""
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1])
feature, boxes = np.load(sys.argv[2]).values()
answer = served.signatures["serving_default"](feature=feature, boxes=boxes)
assert not {"tf_keras", "mrcnn_tf"} & {*sys.modules}
np.savez(sys.argv[2], **{name: value.numpy() for name, value in answer.items()})
"""


@pytest.mark.slow
def test_a_saved_model_holds_both_and_runs_where_only_tensorflow_is(tmp_path):
    class Module(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, None, 3], name="feature"),
                tf.TensorSpec([None, None, 4], name="boxes"),
            ]
        )
        def serve(self, feature, boxes):
            pooled = roi_align.roi_align({2: feature}, boxes, None, 3, 2, True)
            adaptive = roi_align.roi_align({2: feature}, boxes, None, 3, 0, True)
            return {"pooled": pooled, "adaptive": adaptive, "kept": kept(feature, boxes)[0]}

    rng = np.random.default_rng(1)
    feature = rng.standard_normal([1, 12, 16, 3], np.float32)
    boxes = np.sort(rng.uniform(0, 60, [1, 20, 2, 2]), axis=2).reshape(1, 20, 4)
    module, folder = Module(), str(tmp_path / "saved")
    tf.saved_model.save(module, folder, signatures=module.serve)

    # The kernel that only CPUs have, what stands in its place elsewhere, and what leads there.
    definition = module.serve.get_concrete_function().graph.as_graph_def()
    functions = [definition.node, *(f.node_def for f in definition.library.function)]
    ops = [node.op for nodes in functions for node in nodes]
    assert ops.count("DeviceIndex") == ops.count("StatelessCase") + ops.count("Case") == 3
    assert {"NonMaxSuppressionV4", "TensorScatterUpdate"} <= {*ops}

    arrays = str(tmp_path / "arrays.npz")
    np.savez(arrays, feature=feature, boxes=boxes.astype(np.float32))
    subprocess.run([sys.executable, "-c", SCRIPT, folder, arrays], check=True, cwd=tmp_path)
    want = module.serve(feature, boxes.astype(np.float32))
    with np.load(arrays) as got:
        for name, value in want.items():
            np.testing.assert_array_equal(got[name], value)


REPLICAS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", ""
import tensorflow as tf
from mrcnn_tf.ops import roi_align
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
feature = tf.reshape(tf.range(48.0), [1, 4, 4, 3])
box = tf.constant([[[0.0, 0, 4, 4]]])

def run():
    with tf.GradientTape() as tape:
        tape.watch(feature)
        pooled = [roi_align.roi_align({0: feature}, box, None, 2, k, True) for k in (2, 0)]
        loss = tf.reduce_sum(tf.add_n(pooled))
    return tape.gradient(loss, feature)

want = run()
for how in (strategy.run, tf.function(lambda f: strategy.run(f))):
    for got in strategy.experimental_local_results(how(run)):
        tf.debugging.assert_near(got, want)
assert len(strategy.experimental_local_results(how(run))) == 2
"""


def test_on_several_replicas():
    subprocess.run([sys.executable, "-c", REPLICAS], check=True)
