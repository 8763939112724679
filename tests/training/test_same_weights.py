"""same_weights.py, with one process in the others' place."""

import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.training import same_weights
from mrcnn_tf.training.workers import Workers


class Three(Workers):
    """One of three; the others have said what they are given here."""

    def __init__(self, others=None):
        super().__init__()
        self.hosts, self.said, self._others = ["a:1", "b:2", "c:3"], None, others

    def gather(self, value):
        self.said = value
        return [value, *(self._others or [value, value])]


def state(kernel=2.0, momentum=0.0, step=7):
    """A network of five variables, its optimizer's one, and a step."""
    layers = [tf.Variable([[1.0, kernel]], name=f"layer{k}/kernel") for k in range(5)]
    return tf.train.Checkpoint(
        model=tf.train.Checkpoint(layers=layers),
        optimizer=tf.train.Checkpoint(m=tf.Variable(momentum, name="layer0/kernel/momentum")),
        global_step=tf.Variable(step, dtype=tf.int64, name="global_step"),
        half=tf.Variable([1.0, 2.0], dtype=tf.bfloat16, name="half"),
        flags=tf.Variable([True, False], name="flags"),
    )


def said_of(one):
    workers = Three()
    same_weights.check(workers, one)
    return workers.said


def test_equal_weights_pass_whatever_they_are_named_inside():
    assert len(said_of(state())) == 9
    assert said_of(state()) == said_of(state())
    # The CRC-32 of the four bytes of 0.0.
    assert 0x2144DF1C in said_of(state())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            state(kernel=2.0000002),  # the last bit
            r"worker 2 \(c:3\): 5 of 9 variables are not those of the chief: layer0/kernel, "
            r"layer1/kernel, layer2/kernel, \.\.\.$",
        ),
        (state(momentum=1e-30), r"worker 2 \(c:3\): 1 of 9 variables .* layer0/kernel/momentum$"),
        (state(step=8), r"worker 2 \(c:3\): 1 of 9 variables are not those .*: global_step$"),
    ],
)
def test_what_differs_is_named_with_its_worker(other, message):
    mine = state()
    with pytest.raises(ValueError, match=message) as error:
        same_weights.check(Three([said_of(mine), said_of(other)]), mine)
    assert "worker 1" not in str(error.value)
    assert "task.init_checkpoint" in str(error.value)


def test_another_network_is_told_by_the_number_of_variables():
    mine = state()
    with pytest.raises(ValueError, match=r"worker 1 \(b:2\) has 2 variables, not 9"):
        same_weights.check(Three([[1, 2], said_of(mine)]), mine)


def test_one_process_is_not_asked():
    same_weights.check(Workers(), None)


def test_of_several_replicas_the_first_counts():
    """What each replica keeps by itself is not summed, which would ask the other workers."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = tf.Variable(3.0)
        own = tf.Variable(
            3.0,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )
        said = said_of(tf.train.Checkpoint(a=mirrored, b=own))
    assert said == said_of(tf.train.Checkpoint(a=tf.Variable(3.0), b=tf.Variable(3.0)))


def test_weights_of_a_network_in_half_precision():
    """Keras wraps them, so that they are cast where they are used."""
    before = tf_keras.mixed_precision.global_policy()
    said = []
    for strategy in (tf.distribute.MirroredStrategy(["CPU:0"]), tf.distribute.get_strategy()):
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
        with strategy.scope():
            layer = tf_keras.layers.Dense(3, kernel_initializer="ones")
            layer.build([None, 2])
            said.append(said_of(tf.train.Checkpoint(model=layer)))
        tf_keras.mixed_precision.set_global_policy(before)
    assert said[0] == said[1]
    assert len(said[0]) == 2


@pytest.mark.parametrize("module", [tf_keras.optimizers, tf_keras.optimizers.legacy])
def test_momenta_count(module):
    kernel = tf.Variable([1.0, 2.0])
    optimizer = module.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.zeros([2]), kernel)])
    one = tf.train.Checkpoint(kernel=kernel, optimizer=optimizer)
    before = said_of(one)
    (momentum,) = (v for v in _variables_of(optimizer) if v.shape == [2])
    momentum.assign([0.0, 1e-30])
    after = said_of(one)
    assert [x == y for x, y in zip(before, after, strict=True)].count(False) == 1


def _variables_of(optimizer):
    found = optimizer.variables
    return found() if callable(found) else found
