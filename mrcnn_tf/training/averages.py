"""Moving averages of a network's weights, in a network of their own.

The second network is what is evaluated, exported and read by everybody who opens a checkpoint:
there it is `model`, and the weights that training goes on with are `trained`. Evaluation takes
nothing out of the first network and puts nothing back, so it cannot change a run.

Source: Polyak averaging as in TensorFlow's ExponentialMovingAverage: avg = d avg + (1 - d) w after
every step, with d = min(decay, (1 + t) / (10 + t)) after t steps, so that the first weights do not
count for long.
"""

import tensorflow as tf
import tf_keras


class Averages:
    """Keeps the averages.

    Weights that do not train stay what they are, up to the last bit; moving statistics of norms are
    averaged with the others.

    Args:
      trained: the network that trains.
      averaged: one of the same structure.
      decay: d, below 1.
    """

    def __init__(self, trained: tf_keras.Model, averaged: tf_keras.Model, decay: float):
        self.network = averaged
        self._pairs = list(zip(averaged.variables, trained.variables, strict=True))
        self._decay = decay

    def begin(self) -> None:
        """Begin with the weights as they are."""
        for average, weight in self._pairs:
            average.assign(weight)

    def update(self, strategy: tf.distribute.Strategy, num_steps: tf.Tensor) -> None:
        """Take a step's weights in; across replicas.

        Args:
          strategy: that both networks were built under.
          num_steps: int [], taken so far, this one included.
        """
        steps = tf.cast(num_steps, tf.float32)
        share = 1.0 - tf.minimum(self._decay, (1.0 + steps) / (10.0 + steps))

        def move(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))

        for average, weight in self._pairs:
            if average.dtype.is_floating:
                strategy.extended.update(average, move, args=(weight, share), group=False)
