"""The checkpoints of a run that another process trains, as they come."""

import time
from collections.abc import Iterator

from mrcnn_tf import checkpoints
from mrcnn_tf.training.stopping import StopRequest

_SECONDS_BETWEEN_LOOKS = 1.0


def each(folder: str, timeout: float, stop: StopRequest) -> Iterator[str]:
    """Yield the newest checkpoint of a folder that is whole, whenever it is another one.

    TensorFlow's `checkpoints_iterator` yields what the list names, whole or not. Here damage is
    said and the one before is taken, as when training goes on. What comes and is replaced while the
    caller is busy with another is left out.

    Args:
      folder: need not exist yet.
      timeout: seconds to wait for another one.
      stop: asked while waiting.

    Raises:
      Stopped: this process was told to stop.
    """
    looked_at: list[str] | None = None
    last, since = "", time.monotonic()
    while time.monotonic() - since <= timeout:
        stop.check(" while waiting for a checkpoint; the same command goes on")
        listed = checkpoints.listed_in(folder)[:1]
        if listed != looked_at:  # only then, since all of it is read
            looked_at = listed
            newest = checkpoints.find_newest(folder)
            for line in newest.lines():
                print(line, flush=True)
            if newest.checkpoint and newest.checkpoint != last:
                last = newest.checkpoint
                yield last
                since = time.monotonic()
                continue
        time.sleep(_SECONDS_BETWEEN_LOOKS)
