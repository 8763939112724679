"""Remembers which shards of a record set are complete, and what they were made from."""

import contextlib
import dataclasses
import json
import os
import re
from typing import Any

import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.data import record_sets
from mrcnn_tf.data.findings import Finding, Level

from . import unfinished
from .shards import ShardSummary, ShardTask


@dataclasses.dataclass
class Manifest:
    """The file PREFIX.manifest.json, or that of a part of the shards.

    Attributes:
      prefix: --output_file_prefix.
      made_from: what the bytes of all shards depend on, apart from the images.
      part: the shards from the first number up to the second are this one's; None for all.
      shards: by file name, also those of other parts; a shard that is not here is not complete.
      own: names of those that are written here; of all where there are no parts.
      said: all that the manifests of parts and whole say of a shard; they may be of several times.
    """

    prefix: str
    made_from: dict[str, Any]
    part: tuple[int, int] | None = None
    shards: dict[str, ShardSummary] = dataclasses.field(default_factory=dict)
    own: set[str] = dataclasses.field(default_factory=set)
    said: dict[str, list[ShardSummary]] = dataclasses.field(default_factory=dict)

    def has(self, task: ShardTask) -> bool:
        """Tell whether a shard is complete and up to date."""
        name = os.path.basename(task.path)
        if name not in self.shards or not tf.io.gfile.exists(task.path):
            return False
        num_bytes = tf.io.gfile.stat(task.path).length
        for summary in (self.shards[name], *self.said.get(name, ())):
            if (summary.num_bytes, summary.files_sha256) == (num_bytes, task.files_sha256):
                self.shards[name] = summary
                return True
        return False

    def add(self, task: ShardTask, summary: ShardSummary) -> None:
        """Note that a shard is complete, and save."""
        name = os.path.basename(task.path)
        self.shards[name] = summary
        self.own.add(name)
        self.save()

    def save(self) -> None:
        """Write the file; it is replaced in one step."""
        names = self.own if self.part else self.shards.keys()
        self._write(record_sets.manifest_of(self.prefix, self.part), sorted(names))

    def complete(self) -> None:
        """Write the file of the whole set in place of those of its parts."""
        whole = record_sets.manifest_of(self.prefix)
        self._write(whole, sorted(self.shards))
        for path in record_sets.read_manifests(self.prefix):
            if path != whole:
                with contextlib.suppress(tf.errors.NotFoundError):  # another completed it too
                    tf.io.gfile.remove(path)

    def _write(self, path: str, names: list[str]) -> None:
        shards = {name: self.shards[name]._asdict() for name in names if name in self.shards}
        content = {"made_from": self.made_from, "shards": shards}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def write_text(path: str, text: str) -> None:
    """Write a file in one step, in UTF-8; its folder is made."""
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    # Of several processes that write a set, each has a name of its own until it is complete.
    content = text.encode("utf-8", errors="replace")
    whole_file.write(path, content, unfinished=unfinished.name_of(path))


def open_manifest(
    prefix: str, made_from: dict[str, Any], part: tuple[int, int] | None = None
) -> Manifest:
    """Continue or begin a record set.

    Args:
      prefix: --output_file_prefix.
      made_from: settings and fingerprints of the input, JSON values.
      part: the shards that are to be written, see `Manifest`.

    Returns:
      The manifest with all shards that were ever complete.

    Raises:
      ValueError: shards with this prefix were made from something else.
    """
    manifest = Manifest(prefix, made_from, part)
    has_shards = _has_shards(prefix)
    advice = f"Choose another --output_file_prefix, or remove them: rm {prefix}-*-of-*.tfrecord"
    contents = record_sets.read_manifests(prefix)
    if not contents and has_shards:
        raise ValueError(f"{prefix}-*: records of unknown origin are there. {advice}")
    for path, content in contents.items():
        before = content["made_from"]
        if before != made_from:
            if has_shards:
                keys = [k for k in made_from if before.get(k) != made_from[k]]
                changes = ", ".join(
                    f"{k}: {before.get(k)!r} then, {made_from[k]!r} now" for k in keys
                )
                raise ValueError(
                    f"{prefix}-*: the records there were made from other input or with other flags "
                    f"({changes}). {advice}"
                )
            # It describes records that are gone.
            with contextlib.suppress(tf.errors.NotFoundError):
                tf.io.gfile.remove(path)
            continue
        for name, row in content["shards"].items():
            try:
                manifest.shards[name] = summary_of(**row)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{path}: shard {name!r} is not described as this converter does ({error}). "
                    f"{advice}"
                ) from error
            manifest.said.setdefault(name, []).append(manifest.shards[name])
            if path == record_sets.manifest_of(prefix, part):
                manifest.own.add(name)
    return manifest


def summary_of(
    num_bytes: int, files_sha256: str, counts: dict[str, int], findings: list[list[Any]]
) -> ShardSummary:
    """Return a summary of which JSON was made.

    Raises:
      TypeError: it is none.
      ValueError: likewise.
    """
    if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
        raise ValueError(f"counts {counts!r}")
    return ShardSummary(num_bytes, files_sha256, counts, findings_of(findings))


def findings_of(rows: list[list[Any]]) -> list[Finding]:
    """Return findings of which JSON was made; raises as `summary_of` does."""
    return [Finding(Level(level), *rest) for level, *rest in rows]


def _has_shards(prefix: str) -> bool:
    """Tell whether there are records of this prefix; a folder's name is taken literally."""
    folder, name = os.path.split(prefix)
    if not tf.io.gfile.isdir(folder or "."):
        return False
    shard = re.compile(re.escape(name) + r"-\d+-of-\d+\.tfrecord")
    return any(shard.fullmatch(other) for other in tf.io.gfile.listdir(folder or "."))
