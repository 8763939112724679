"""Names every file that was found and has no detections, with the reason: none goes in silence."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from mrcnn_tf.images import kinds, storage

_MAX_NAMED = 20  # of files that are no images, on the console; the file names all


class Unread(NamedTuple):
    """A file that has no detections.

    Attributes:
      file: its name.
      status: "failed": an image that could not be used; "no image".
      why: what is wrong with it, or what else it is.
    """

    file: str
    status: Literal["failed", "no image"]
    why: str


def list_all(others: Sequence[tuple[str, str]], failures: Mapping[str, str]) -> list[Unread]:
    """List those of a run.

    Args:
      others: (name, path) of files that are no images.
      failures: what went wrong, by the image's name.
    """
    unread = []
    for name, path in others:
        try:
            what = kinds.what_else(storage.read(path, kinds.HEAD_BYTES))
        except Exception:  # gone meanwhile; other file systems have errors of their own
            what = ""
        why = f"not an image but {what}" if what else "not an image"
        unread.append(Unread(name, "no image", why))
    return unread + [Unread(name, "failed", why) for name, why in failures.items()]


def tell(unread: Sequence[Unread], path: str) -> None:
    """Print them, and write them down as a JSON list; without any, no file is written.

    Args:
      unread: what `list_all` returned.
      path: of the file.
    """
    passed_over = [one for one in unread if one.status == "no image"]
    for one in passed_over[:_MAX_NAMED]:
        print(f"PASSED OVER {one.file}: {one.why}")
    if len(passed_over) > _MAX_NAMED:
        more = len(passed_over) - _MAX_NAMED
        print(f"PASSED OVER {more} more files that are no images: {os.path.basename(path)}")
    for one in unread:
        if one.status == "failed":
            print(f"FAILED {one.file}: {one.why}")
    if not unread:
        return
    # File names need not be UTF-8: such bytes go out as they came in.
    rows = [json.dumps(one._asdict(), ensure_ascii=False) for one in unread]
    text = "[\n" + ",\n".join(rows) + "\n]\n"
    storage.write(path, text.encode("utf-8", "surrogateescape"))
