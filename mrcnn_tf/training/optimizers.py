"""The optimizer of an experiment, and who decays the weights: it or the gradient, never both."""

import copy
from typing import Any

import tf_keras
from official.core import config_definitions
from official.modeling import performance
from official.modeling.optimization import optimizer_factory

from mrcnn_tf.experiment.experiment import Trainer
from mrcnn_tf.training import decay

# Optimizers that decay weights themselves, apart from the gradient: {type: field of their own}.
_OWN_DECAY = {
    "adamw": "weight_decay_rate",
    "adamw_experimental": "weight_decay",
    "lamb": "weight_decay_rate",
    "lars": "weight_decay_rate",
}
_ABSENT = ("slide", "adafactor")  # configured in Model Garden, implemented nowhere
_NORMS = r"(gamma|beta)[^/]*$"  # end of the name: scales and offsets of norms never decay
_BIASES = r"bias[^/]*$"


def decay_in_gradient(config: Trainer) -> decay.Decay:
    """Return what is added to gradients: nothing if the optimizer decays by itself."""
    return decay.of(config, decoupled=config.optimizer_config.optimizer.type in _OWN_DECAY)


def create(
    config: Trainer, runtime: config_definitions.RuntimeConfig
) -> tf_keras.optimizers.Optimizer:
    """Build optimizer and learning-rate schedule.

    The decay is written once, as `trainer.weight_decay`. An optimizer that is known for keeping it
    apart from the gradient (AdamW, LAMB) gets it, all others see it in the gradient.

    Args:
      config: the schedule, scaled to the batch.
      runtime: says whether losses are scaled for float16.

    Raises:
      ValueError: the decay is written twice, or there is no such optimizer.
    """
    config = copy.deepcopy(config)
    kind, own = config.optimizer_config.optimizer.type, config.optimizer_config.optimizer.get()
    where = f"trainer.optimizer_config.optimizer.{kind}"
    if kind in _ABSENT:
        raise ValueError(f"{where}: tf-models-official has no such optimizer, only its fields")
    field = _OWN_DECAY.get(kind)
    if field:
        if getattr(own, field) not in (0.0, config.weight_decay):
            raise ValueError(
                f"{where}.{field}: {getattr(own, field)}, but trainer.weight_decay is "
                f"{config.weight_decay}. The decay is written once: set trainer.weight_decay to "
                f"what you want and leave this out; {kind} applies it apart from the gradient"
            )
        if config.bias_weight_decay not in (0.0, config.weight_decay):
            raise ValueError(
                f"trainer.bias_weight_decay: {config.bias_weight_decay}, but {kind} has one decay "
                f"only: 0 or trainer.weight_decay, {config.weight_decay}"
            )
        not_decayed = [_NORMS] if config.bias_weight_decay else [_NORMS, _BIASES]
        setattr(own, field, config.weight_decay)
        if hasattr(own, "exclude_from_weight_decay"):
            own.exclude_from_weight_decay = not_decayed
    _clip_sums(own, where)
    factory = optimizer_factory.OptimizerFactory(config.optimizer_config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    if field and not hasattr(own, "exclude_from_weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=not_decayed)
    return performance.configure_optimizer(
        optimizer,
        use_float16=runtime.mixed_precision_dtype == "float16",
        loss_scale=runtime.loss_scale,
    )


def _clip_sums(own: Any, where: str) -> None:
    """Have AdamW clip the gradient of the step, in place.

    Model Garden's AdamW clips each replica's part of it to `gradient_clip_norm`, so that a step
    depends on how the images are spread, and nothing where losses are scaled (float16). Keras'
    `global_clipnorm` comes behind the sum in both cases.

    Raises:
      ValueError: gradients are to be clipped one by one as well.
    """
    norm = getattr(own, "gradient_clip_norm", 0.0)
    if not norm:
        return
    if own.clipnorm is not None:
        raise ValueError(
            f"{where}.clipnorm: {own.clipnorm}, but {where}.gradient_clip_norm is {norm}: both "
            "clip. Set one of them to null or 0"
        )
    own.global_clipnorm = min(norm, own.global_clipnorm or norm)
    own.gradient_clip_norm = 0.0
