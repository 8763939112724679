"""The one reader of COCO annotation files: for the converter, the label map and the evaluator.

What comes out is typed and complete, so that the code behind needs no second look, with a
`Finding` for each thing that was odd. Nothing here opens an image.
"""

import hashlib
import json
from typing import Any

import tensorflow as tf

from mrcnn_tf.data import coco_check, coco_masks
from mrcnn_tf.data.coco_check import SizeOf
from mrcnn_tf.data.coco_data import CocoData
from mrcnn_tf.data.findings import Level
from mrcnn_tf.data.label_map import LabelMap

_LONGEST_INTEGER = 4000  # digits; Python refuses to read ones that are a little longer


def read(path: str, include_masks: bool = True, size_of: SizeOf | None = None) -> CocoData:
    """Read and check a COCO annotation file.

    Memory: the file's bytes are gone before its text is parsed, polygons become arrays while it is,
    and each annotation's dict is dropped as soon as it is checked.

    Args:
      path: the JSON file.
      include_masks: whether masks are wanted.
      size_of: returns the (height, width) of a file name, to be asked where the annotation file
        does not give it.

    Raises:
      ValueError: the file cannot be read or is no COCO file at all.
    """
    text, sha256 = read_text(path)
    content = parse(text, path)
    del text
    data = coco_check.check(content, include_masks, path, size_of, consume=True)
    data.sha256 = sha256
    return data


def read_label_map(path: str) -> LabelMap:
    """Return the classes of a COCO annotation file.

    Raises:
      ValueError: it is no COCO file, or its categories are refused.
    """
    data = read(path, include_masks=False)
    refused = [finding for finding in data.findings if finding.level == Level.REFUSED]
    if refused and not data.label_map.ids:
        raise ValueError(f"{path}: {refused[0]}")
    return data.label_map


def parse(text: str, name: str) -> Any:
    """Parse JSON.

    Args:
      text: of the file.
      name: its path, for messages.

    Returns:
      The JSON value, number lists of segmentations as arrays.

    Raises:
      ValueError: it is no JSON; the message names file and place.
    """
    try:
        return json.loads(text, object_hook=coco_masks.compact, parse_int=_parse_integer)
    except json.JSONDecodeError as error:
        nearby = error.doc[max(error.pos - 20, 0) : error.pos + 20]
        raise ValueError(
            f"{name}: not a JSON file: {error.msg} in line {error.lineno}, column {error.colno}, "
            f"near {nearby!r}" + (" (the file is empty)" if not text.strip() else "")
        ) from error
    except RecursionError as error:
        raise ValueError(f"{name}: not a COCO annotation file: nested too deeply") from error


def read_text(path: str) -> tuple[str, str]:
    """Return a file's text, and the SHA-256 of its bytes in hex digits.

    The text is in UTF-8 (or UTF-16, UTF-32) with or without a byte order mark.

    Raises:
      ValueError: it cannot be read, or is no such text.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            raw = file.read()
    except tf.errors.OpError as error:
        raise ValueError(f"{path}: cannot be read ({error.message})") from error
    try:
        # As json.loads would, which keeps the bytes beside the text until it is parsed.
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not in UTF-8: byte {error.start} is {error.object[error.start]:#x}. Save the "
            "file as UTF-8"
        ) from error
    return text, hashlib.sha256(raw).hexdigest()


def _parse_integer(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_INTEGER else float(text)
