"""Images as elements of a pipeline: where each one is to be found, and under which id.

Nothing that names an image goes in silence: a line or a record that cannot be used is an element,
too, which says why.
"""

import itertools
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from mrcnn_tf.data import columns, damage, record_files, schema
from mrcnn_tf.images import passing, storage


class Picture(NamedTuple):
    """An image that is to be looked at.

    Attributes:
      image_id: what results call it.
      path: of its file, or of the file of records that holds it.
      content: its bytes, where it comes out of a record; else None.
      problem: why there is no image here; "" if there is one.
    """

    image_id: int | str
    path: str
    content: bytes | None = None
    problem: str = ""


def to_line(image_id: str, path: str) -> bytes:
    """Return a line of a manifest, without its end."""
    return encode({"image_id": image_id, "path": path})


def encode(row: dict) -> bytes:
    """Return a row as JSON. File names need not be UTF-8: such bytes go out as they came in.

    Raises:
      UnicodeEncodeError: a text holds half a character, as an escape in JSON can write it.
    """
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")


def from_line(line: bytes, manifest: str) -> Iterator[Picture]:
    """Read a line of a manifest.

    Args:
      line: without its end; an empty one names no image.
      manifest: the file that it stands in. In a .jsonl a line is {"path": ..., "image_id": ...},
        where the id may be absent; in any other file, a path. A relative path is one relative to
        the manifest's folder; an image without an id is called by its path, as it is written.

    Yields:
      The image, if there is one.
    """
    text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
    if not text:
        return
    path, image_id = text, text
    if manifest.endswith(".jsonl"):
        try:
            row = json.loads(text)
            path = row["path"]
            image_id = row.get("image_id", path)
            is_usable = isinstance(path, str) and type(image_id) in (int, str)
            encode({"image_id": image_id, "path": path})  # what names no file is no name
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_usable = False
        if not is_usable:
            problem = f'{manifest}: a line that is not {{"path": ..., "image_id": ...}}'
            yield Picture(text[:200], manifest, problem=problem)
            return
    if not storage.is_remote(path):
        path = os.path.join(os.path.dirname(manifest), path)
    yield Picture(image_id, path)


def from_records(path: str) -> Iterator[Picture]:
    """Read a file of records, in either layout of `columns.py`.

    Yields:
      The image of each, under its id: a number where that is one. For each place that is damaged a
      picture that says so; the records behind it are read. For a file that cannot be read, one.

    Raises:
      ValueError: the file cannot be read at the moment, see `passing.py`: one picture would stand
        for all of its records, though the runner may well read them when it tries again.
      OSError: the same.
    """
    try:
        damages = damage.verify([path])
        (readable,) = damage.without([path], damages)
    except (ValueError, OSError) as error:
        if passing.may_pass(error):
            raise
        yield Picture(path, path, problem=str(error))
        return
    for one in damages:
        yield Picture(f"{path}: record {one.record + 1}", path, problem=str(one))
    damaged = {one.record for one in damages}
    numbers = (number + 1 for number in itertools.count() if number not in damaged)
    for number, raw in zip(numbers, record_files.read([readable]), strict=False):
        yield _from_record(raw, path, number)


def _from_record(raw: bytes, path: str, number: int) -> Picture:
    try:
        feature = columns.of_record(raw)
        (text,) = feature[schema.IMAGE_SOURCE_ID].bytes_list.value
        (content,) = feature[schema.IMAGE_ENCODED].bytes_list.value
        source_id = text.decode("utf-8")
        is_number = source_id.removeprefix("-").isdecimal() and str(int(source_id)) == source_id
    except (DecodeError, ValueError) as error:
        problem = f"no record with {schema.IMAGE_SOURCE_ID} and {schema.IMAGE_ENCODED}: {error}"
        return Picture(f"{path}: record {number}", path, problem=problem)
    return Picture(int(source_id) if is_number else source_id, path, content)
