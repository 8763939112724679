"""`--threads=N`: how many threads a command computes with, so that the machine stays usable.

TensorFlow is told by its own environment variables, which it reads when it runs its first operation
and which the processes that a command starts inherit. N threads work inside of operations, and N
run operations and, since it has no pool of its own here, tf.data; XLA's programs run on the former.
hotcoco, which scores, takes the number from the variable of its own library.
"""

import os

from absl import flags

_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "RAYON_NUM_THREADS")


def define_flag() -> None:
    """Define `--threads`."""
    flags.DEFINE_integer(
        "threads",
        None,
        "Threads to compute with. Default: one per processor core.",
        lower_bound=1,
    )


def use(threads: int | None) -> None:
    """Compute with so many; to be called before TensorFlow runs anything.

    Args:
      threads: what the flag says; None leaves everything as it is.
    """
    if threads is not None:
        os.environ |= dict.fromkeys(_VARIABLES, str(threads))
