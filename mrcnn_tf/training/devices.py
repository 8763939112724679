"""The replicas that a run trains on."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence

import tensorflow as tf
from official.common import distribute_utils
from official.core import config_definitions

from mrcnn_tf.console import labelled_lines
from mrcnn_tf.training import cluster
from mrcnn_tf.training.workers import Workers


def strategy(runtime: config_definitions.RuntimeConfig) -> tf.distribute.Strategy:
    """Mirror over `runtime.num_gpus` GPUs, by default all that are visible, and over the machines.

    With several machines every line that this process prints says from here on which it is; the
    call returns when all are there. It has to come before TensorFlow's first operation.

    Raises:
      ValueError: there are not as many GPUs; or see `cluster.find`; or the machines do not come
        together, or have not as many GPUs each.
    """
    machines = cluster.find(runtime)
    visible = len(tf.config.list_physical_devices("GPU"))
    if runtime.num_gpus > visible:
        raise ValueError(
            f"runtime.num_gpus: {runtime.num_gpus}, but TensorFlow sees {visible} GPUs. Leave it 0 "
            "for all there are; nvidia-smi and CUDA_VISIBLE_DEVICES say which those should be"
        )
    if not machines:
        return _strategy(runtime, visible)
    if runtime.num_gpus not in (0, visible):
        raise ValueError(
            f"runtime.num_gpus: {runtime.num_gpus}, but of several machines all {visible} GPUs "
            "that TensorFlow sees on each are used. CUDA_VISIBLE_DEVICES says which those are"
        )
    cluster.tell_tensorflow(machines)
    if machines.others:
        labelled_lines.label_output(f"worker {machines.task_index}: ")
        print(f"waiting for {', '.join(machines.others)}", flush=True)
    try:
        with _interruptible():
            used = _strategy(runtime, visible)
            workers = Workers(used)
            assert workers.count == len(machines.hosts), (workers.hosts, machines.hosts)
            said = workers.before_collectives("devices", describe_replicas(visible))
    except (tf.errors.OpError, RuntimeError) as error:
        text = getattr(error, "message", str(error)).strip().splitlines()[0]
        raise ValueError(
            f"worker {machines.task_index} ({machines.hosts[machines.task_index]}) and "
            f"{', '.join(machines.others)} do not come together: {text}. Does another process "
            "hold the port?"
        ) from error
    check_equal(workers, said)
    return used


def check_equal(workers: Workers, said: Sequence[str]) -> None:
    """Refuse machines with other replicas than the chief's: TensorFlow takes them for equal.

    Args:
      workers: on all machines.
      said: `describe_replicas` of each.

    Raises:
      ValueError: on every worker, with the differences.
    """
    wrong = [
        f"{workers.name(k)} has {theirs}; the chief has {said[0]}"
        for k, theirs in enumerate(said)
        if theirs != said[0]
    ]
    if wrong:
        raise ValueError(
            "every machine of a run needs as many GPUs as the others (nvidia-smi and "
            "CUDA_VISIBLE_DEVICES say which TensorFlow sees):\n  " + "\n  ".join(wrong)
        )


def replicas_of_a_machine() -> int:
    """Return how many replicas `strategy` makes on each of several machines."""
    return len(tf.config.list_physical_devices("GPU")) or 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process while TensorFlow waits, where Python would not notice it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say so
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def _strategy(runtime: config_definitions.RuntimeConfig, visible: int) -> tf.distribute.Strategy:
    return distribute_utils.get_distribution_strategy(
        distribution_strategy=runtime.distribution_strategy,
        all_reduce_alg=runtime.all_reduce_alg,
        num_gpus=runtime.num_gpus or visible,
        num_packs=runtime.num_packs,
    )


def describe(used: tf.distribute.Strategy) -> str:
    """Return "8 GPUs", "1 CPU"."""
    return _counted(used.num_replicas_in_sync, "GPU" in used.extended.worker_devices[0])


def describe_replicas(visible: int) -> str:
    """Return what a machine brings into a run of several: all its GPUs, else its processor."""
    return _counted(visible or 1, bool(visible))


def _counted(count: int, are_gpus: bool) -> str:
    kind = "GPU" if are_gpus else "CPU"
    return f"{count} {kind}{'s' if count > 1 else ''}"
