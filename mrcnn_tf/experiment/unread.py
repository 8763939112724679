"""Fields that Model Garden's configuration has and nothing here reads: refused, not ignored."""

from typing import Any

from mrcnn_tf.experiment.experiment import Experiment

_STRATEGIES = ("mirrored", "one_device", "multi_worker_mirrored")
_NO_TPU = "networks run on GPUs and CPUs here, not on TPUs"

# {field: (the value that does nothing, why there is no other)}.
UNREAD: dict[str, tuple[Any, str]] = {
    "runtime.tpu": (None, _NO_TPU),
    "runtime.tpu_enable_xla_dynamic_padder": (None, _NO_TPU),
    "runtime.num_cores_per_replica": (1, _NO_TPU),
    "runtime.default_shard_dim": (-1, _NO_TPU),
    "runtime.use_tpu_mp_strategy": (False, _NO_TPU),
    "trainer.allow_tpu_summary": (False, _NO_TPU),
    "runtime.gpu_thread_mode": (None, "set the environment variable TF_GPU_THREAD_MODE"),
    "runtime.per_gpu_thread_count": (0, "set the environment variable TF_GPU_THREAD_COUNT"),
    "runtime.batchnorm_spatial_persistent": (
        False,
        "set the environment variable TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT",
    ),
    "runtime.dataset_num_private_threads": (None, "--threads=N is for tf.data too"),
    "runtime.run_eagerly": (
        False,
        "trainer.train_tf_function, train_tf_while_loop and eval_tf_function: false do that",
    ),
    "trainer.eval_tf_while_loop": (False, "detections are scored in Python, batch by batch"),
    "trainer.optimizer_config.ema": (
        None,
        "for moving averages of the weights set trainer.ema_decay",
    ),
    "trainer.preemption_on_demand_checkpoint": (True, "SIGTERM always saves a checkpoint"),
}


def check(experiment: Experiment) -> None:
    """Refuse what would silently do nothing.

    Raises:
      ValueError: with the field, its value, and what to do instead.
    """
    for field, (default, why) in UNREAD.items():
        value: Any = experiment
        for name in field.split("."):
            value = getattr(value, name, default)
        if value != default:
            raise ValueError(f"{field}: {value!r} would not be read: {why}")
    runtime = experiment.runtime
    if runtime.distribution_strategy not in _STRATEGIES:
        raise ValueError(
            f"runtime.distribution_strategy: got {runtime.distribution_strategy!r}, allowed are "
            f"{', '.join(map(repr, _STRATEGIES))}"
        )
    if runtime.loss_scale is not None and runtime.mixed_precision_dtype != "float16":
        raise ValueError(
            f"runtime.loss_scale: {runtime.loss_scale!r} would not be read: only "
            "runtime.mixed_precision_dtype: float16 needs one"
        )
