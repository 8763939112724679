import profile_of_ops
import pytest
import tensorflow as tf

from mrcnn_tf.ops import boxes


def xplane(threads):
    """A profile of one call from 0 to 100 µs with ops by thread: (name:type, start, end) in µs."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    plane = xplane_pb2.XPlane(name="/host:CPU")
    ids = {}

    def add(line, name, start, end, kind):
        number = ids.setdefault(name, len(ids) + 1)
        plane.event_metadata[number].id = number
        plane.event_metadata[number].name = name
        plane.event_metadata[number].display_name = kind
        event = line.events.add(metadata_id=number)
        event.offset_ps, event.duration_ps = int(start * 1e6), int((end - start) * 1e6)

    add(plane.lines.add(), "call", 0, 100, "")
    for ops in threads:
        line = plane.lines.add()
        add(line, "Something::Else", 0, 100, "")
        for name, start, end in ops:
            add(line, name, start, end, name.split(":")[1])
    return xplane_pb2.XSpace(planes=[plane]).SerializeToString()


def test_an_instant_is_shared_by_the_ops_that_run_then():
    seconds, idle = profile_of_ops._shares(
        xplane([[("a:Conv2D", 10, 50), ("b:Relu", 60, 70)], [("c:MatMul", 30, 50)]])
    )
    assert {name: pytest.approx(s * 1e6) for (name, _), s in seconds.items()} == {
        "a": 20 + 20 / 2, "b": 10, "c": 20 / 2,
    }  # fmt: skip
    assert idle * 1e6 == pytest.approx(100 - 40 - 10)


def test_an_op_inside_an_op_on_one_thread_counts_once():
    seconds, idle = profile_of_ops._shares(
        xplane([[("outer:While", 0, 40), ("inner:Add", 10, 20), ("inner:Add", 20, 30)]])
    )
    assert {n: pytest.approx(s * 1e6) for (n, _), s in seconds.items()} == {
        "outer": 20, "inner": 20,
    }  # fmt: skip
    assert idle * 1e6 == pytest.approx(60)


def test_ops_of_a_graph_are_found_with_their_part_and_direction():
    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 8, 64], [1, 2]))

    @tf.function(autograph=False)
    def function(x):
        with tf.GradientTape() as tape, tf.name_scope("resnet/stage2"):
            y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        boxes.area(tf.reshape(y, [-1, 4]))
        return tape.gradient(y, kernel)

    x = tf.random.stateless_normal([1, 64, 64, 8], [3, 4])
    graph = function.get_concrete_function(x).graph
    ops, idle = profile_of_ops.profile(lambda: function(x).numpy(), graph, 2)
    matrix = {(op.part, op.backward) for op in ops if op.is_of_layer}
    assert matrix == {("backbone", False), ("backbone", True)}
    assert all(op.seconds >= 0 for op in ops)
    assert idle >= 0
