"""Errors that pass: of storage or memory at a moment, not of the file that was to be read."""

import errno

import tensorflow as tf

# What is wrong with a name, or who may use it, and what stays so. Pillow's errors of broken
# pictures are OSErrors without a number.
_LASTING = (
    *(None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP),
)
_PASSING = (
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,  # where TensorFlow reads a file of this machine: EIO
)


def may_pass(error: BaseException) -> bool:
    """Whether a second try may go well: by an error, or one that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in _LASTING:
            return True
        if isinstance(cause, (MemoryError, *_PASSING)):
            return True
        cause = cause.__cause__
    return False
