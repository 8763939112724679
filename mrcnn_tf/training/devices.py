"""The replicas that a run trains on."""

import tempfile

import tensorflow as tf
from official.common import distribute_utils
from official.core import config_definitions


def strategy(runtime: config_definitions.RuntimeConfig) -> tf.distribute.Strategy:
    """Mirror over `runtime.num_gpus` GPUs, by default all that are visible.

    Raises:
      ValueError: there are not as many.
    """
    visible = len(tf.config.list_physical_devices("GPU"))
    if runtime.num_gpus > visible:
        raise ValueError(
            f"runtime.num_gpus: {runtime.num_gpus}, but TensorFlow sees {visible} GPUs. Leave it 0 "
            "for all there are; nvidia-smi and CUDA_VISIBLE_DEVICES say which those should be"
        )
    return distribute_utils.get_distribution_strategy(
        distribution_strategy=runtime.distribution_strategy,
        all_reduce_alg=runtime.all_reduce_alg,
        num_gpus=runtime.num_gpus or visible,
        num_packs=runtime.num_packs,
    )


def describe(used: tf.distribute.Strategy) -> str:
    """Return "8 GPUs", "1 CPU"."""
    count = used.num_replicas_in_sync
    kind = "GPU" if "GPU" in used.extended.worker_devices[0] else "CPU"
    return f"{count} {kind}{'s' if count > 1 else ''}"


def folder_to_write(used: tf.distribute.Strategy, model_dir: str) -> str:
    """Return where this process writes: of several machines only the first keeps what it writes.

    All have to save, because reading what is spread over them takes all of them.
    """
    return model_dir if used.extended.should_checkpoint else tempfile.mkdtemp()
