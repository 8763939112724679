"""Small files by which a command and its workers, perhaps on other machines, tell each other."""

import uuid

from mrcnn_tf.console import whole_file


def write(path: str, content: bytes) -> None:
    """Write a file in one step, however many workers, or threads of one, do at a time.

    Args:
      path: of any file system of `tf.io.gfile`; its folder is there.
      content: of the file.

    Raises:
      OSError: as `whole_file.write` does.
      tf.errors.OpError: the same.
    """
    whole_file.write(path, content, unfinished=f"{path}.{uuid.uuid4().hex}")
