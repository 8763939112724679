"""Whether all workers of a run stand at the same weights, before they go on together.

A strategy hands a variable's first value to all machines when the variable is created, and never
again: what a worker reads from a file afterwards stays its own, and so would the difference, since
all add the same gradients. Files are read per machine (`init_checkpoint`, weights of a backbone, a
checkpoint of the run), so what came of them is compared, as checksums.
"""

import zlib
from typing import Any

import tensorflow as tf
import tf_keras

from mrcnn_tf.training.workers import Workers

_MOST_NAMED = 3  # variables of each worker


def check(workers: Workers, state: tf.train.Checkpoint) -> None:
    """Refuse workers whose variables are not the chief's.

    Args:
      workers: all of them come here.
      state: every variable of it is compared.

    Raises:
      ValueError: on every worker, with the variables that differ.
    """
    if workers.count == 1:
        return
    # Breadth first along the names of attributes: the same order on all workers.
    variables = []
    for thing in tf.train.TrackableView(state).descendants():
        if isinstance(thing, tf.Variable):
            variables.append(thing)
        elif isinstance(thing, tf_keras.optimizers.legacy.Optimizer):
            variables += thing.weights  # which are no attributes of it
    said = workers.gather([_checksum(variable) for variable in variables])
    wrong = []
    for k, theirs in enumerate(said):
        if len(theirs) != len(variables):
            wrong.append(f"{workers.name(k)} has {len(theirs)} variables, not {len(variables)}")
            continue
        pairs = zip(variables, theirs, said[0], strict=False)
        names = [variable.name.partition(":")[0] for variable, its, ours in pairs if its != ours]
        if names:
            more = ", ..." if len(names) > _MOST_NAMED else ""
            named = ", ".join(names[:_MOST_NAMED])
            wrong.append(
                f"{workers.name(k)}: {len(names):,} of {len(variables):,} variables are not those "
                f"of the chief: {named}{more}"
            )
    if wrong:
        raise ValueError(
            "the workers do not stand at the same weights, and would train another network each. "
            "Look at the files that each machine reads them from: task.init_checkpoint, those of "
            "task.model.backbone.weights, the checkpoints in --model_dir\n  " + "\n  ".join(wrong)
        )


def _checksum(variable: Any) -> int:
    """Return the CRC-32 of a variable on this worker; of several replicas, of the first."""
    strategy = tf.distribute.get_strategy()
    # Not `variable.numpy()`, which would add up over the workers what each keeps by itself.
    first = strategy.experimental_local_results(variable)[0]
    return zlib.crc32(first.numpy().tobytes())
