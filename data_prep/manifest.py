"""Remembers which shards of a record set are complete, and what they were made from."""

import dataclasses
import json
import os
import re
from typing import Any

import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.data import record_sets
from mrcnn_tf.data.findings import Finding, Level

from .shards import ShardSummary, ShardTask


@dataclasses.dataclass
class Manifest:
    """The file PREFIX.manifest.json.

    Attributes:
      path: of the file.
      made_from: what the bytes of all shards depend on, apart from the images.
      shards: by file name; a shard that is not listed here is not complete.
    """

    path: str
    made_from: dict[str, Any]
    shards: dict[str, ShardSummary] = dataclasses.field(default_factory=dict)

    def has(self, task: ShardTask) -> bool:
        """Tell whether a shard is complete and up to date."""
        summary = self.shards.get(os.path.basename(task.path))
        return (
            summary is not None
            and tf.io.gfile.exists(task.path)
            and tf.io.gfile.stat(task.path).length == summary.num_bytes
            and task.files_sha256 == summary.files_sha256
        )

    def add(self, task: ShardTask, summary: ShardSummary) -> None:
        """Note that a shard is complete, and save."""
        self.shards[os.path.basename(task.path)] = summary
        self.save()

    def save(self) -> None:
        """Write the file; it is replaced in one step."""
        shards = {name: self.shards[name]._asdict() for name in sorted(self.shards)}
        content = {"made_from": self.made_from, "shards": shards}
        write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False))


def write_text(path: str, text: str) -> None:
    """Write a file in one step, in UTF-8; its folder is made."""
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    whole_file.write(path, text.encode("utf-8", errors="replace"))


def open_manifest(prefix: str, made_from: dict[str, Any]) -> Manifest:
    """Continue or begin a record set.

    Args:
      prefix: --output_file_prefix.
      made_from: settings and fingerprints of the input, JSON values.

    Returns:
      The manifest with all shards that were ever complete.

    Raises:
      ValueError: shards with this prefix were made from something else.
    """
    manifest = Manifest(prefix + ".manifest.json", made_from)
    has_shards = _has_shards(prefix)
    advice = f"Choose another --output_file_prefix, or remove them: rm {prefix}-*-of-*.tfrecord"
    if not tf.io.gfile.exists(manifest.path):
        if has_shards:
            raise ValueError(f"{prefix}-*: records of unknown origin are there. {advice}")
        return manifest
    content = record_sets.read_manifest(manifest.path)
    before = content["made_from"]
    if before != made_from:
        if has_shards:
            keys = [k for k in made_from if before.get(k) != made_from[k]]
            changes = ", ".join(f"{k}: {before.get(k)!r} then, {made_from[k]!r} now" for k in keys)
            raise ValueError(
                f"{prefix}-*: the records there were made from other input or with other flags "
                f"({changes}). {advice}"
            )
        return manifest
    for name, row in content["shards"].items():
        try:
            manifest.shards[name] = _summary(**row)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{manifest.path}: shard {name!r} is not described as this converter does "
                f"({error}). {advice}"
            ) from error
    return manifest


def _summary(
    num_bytes: int, files_sha256: str, counts: dict[str, int], findings: list[list[Any]]
) -> ShardSummary:
    """Return a row of the file as what it was made of.

    Raises:
      TypeError: it is none.
      ValueError: likewise.
    """
    if not all(isinstance(count, int) for count in counts.values() if isinstance(counts, dict)):
        raise ValueError(f"counts {counts!r}")
    left_out = [Finding(Level(level), *rest) for level, *rest in findings]
    return ShardSummary(num_bytes, files_sha256, counts, left_out)


def _has_shards(prefix: str) -> bool:
    """Tell whether there are records of this prefix; a folder's name is taken literally."""
    folder, name = os.path.split(prefix)
    if not tf.io.gfile.isdir(folder or "."):
        return False
    shard = re.compile(re.escape(name) + r"-\d+-of-\d+\.tfrecord")
    return any(shard.fullmatch(other) for other in tf.io.gfile.listdir(folder or "."))
