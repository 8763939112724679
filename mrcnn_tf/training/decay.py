"""What is done to gradients before the optimizer sees them: weight decay, and the rate of biases.

The decay is added to the gradient, so that momentum sees it, as in Caffe2 and PyTorch. Scales and
offsets of norms never decay (Detectron2's `WEIGHT_DECAY_NORM` 0).
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from mrcnn_tf.experiment.experiment import Trainer

# Optimizers whose step grows with the gradient; the others divide it by its own size.
_SCALED_BY_GRADIENT = ("sgd", "sgd_experimental")


@dataclasses.dataclass(frozen=True)
class Decay:
    """The numbers of it.

    Attributes:
      kernels: added per weight to the gradient of kernels.
      biases: the same for biases.
      bias_factor: biases' gradients, decay included, times this: for SGD, with momentum or without,
        the same as so many times the learning rate.
    """

    kernels: float = 0.0
    biases: float = 0.0
    bias_factor: float = 1.0

    def apply(
        self, gradients: Sequence[tf.Tensor], variables: Sequence[tf.Variable], replicas: int
    ) -> list[tf.Tensor]:
        """Return the gradients with decay, of one of several replicas whose sum is the step's.

        Raises:
          ValueError: a variable has no gradient.
        """
        decayed = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                raise ValueError(f"{variable.name} gets no gradient")
            gradient = tf.convert_to_tensor(gradient)
            decay, factor = self._of(variable.name.split("/")[-1])
            if decay:
                gradient += decay / replicas * tf.cast(variable, gradient.dtype)
            decayed.append(gradient if factor == 1.0 else factor * gradient)
        return decayed

    def _of(self, name: str) -> tuple[float, float]:
        """Decay and factor of a variable by the last part of its name."""
        if name.startswith(("gamma", "beta")):
            return 0.0, 1.0
        if "bias" in name:
            return self.biases, self.bias_factor
        return self.kernels, 1.0


def of(config: Trainer, decoupled: bool) -> Decay:
    """Return what the fields of an experiment say.

    Args:
      config: `weight_decay`, `bias_weight_decay` and `bias_learning_rate_factor` are read.
      decoupled: the optimizer decays by itself, so nothing is added to gradients.
    """
    factor = 1.0
    if config.optimizer_config.optimizer.type in _SCALED_BY_GRADIENT:
        factor = config.bias_learning_rate_factor
    if decoupled:
        return Decay(bias_factor=factor)
    return Decay(config.weight_decay, config.bias_weight_decay, factor)
