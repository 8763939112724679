"""Remembers which shards of a record set are complete, and what they were made from."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from .problems import Problem
from .shards import ShardSummary, ShardTask


@dataclasses.dataclass
class Manifest:
    """The file PREFIX.manifest.json.

    Attributes:
      path: of the file.
      made_from: what the bytes of all shards depend on, apart from the images.
      shards: by file name; a shard that is not listed here is not complete.
    """

    path: pathlib.Path
    made_from: dict[str, Any]
    shards: dict[str, ShardSummary] = dataclasses.field(default_factory=dict)

    def has(self, task: ShardTask) -> bool:
        """Tell whether a shard is complete, up to date and good enough."""
        summary = self.shards.get(task.path.name)
        return (
            summary is not None
            and task.path.exists()
            and task.path.stat().st_size == summary.num_bytes
            and task.files_sha256 == summary.files_sha256
            and (task.skip_bad_images or not summary.problems)
        )

    def add(self, task: ShardTask, summary: ShardSummary) -> None:
        """Note that a shard is complete, and save."""
        self.shards[task.path.name] = summary
        self.save()

    def save(self) -> None:
        """Write the file; it is replaced in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        shards = {name: self.shards[name]._asdict() for name in sorted(self.shards)}
        content = {"made_from": self.made_from, "shards": shards}
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")
        os.replace(partial, self.path)


def open_manifest(prefix: pathlib.Path, made_from: dict[str, Any]) -> Manifest:
    """Continue or begin a record set.

    Args:
      prefix: --output_file_prefix.
      made_from: settings and fingerprints of the input, JSON values.

    Returns:
      The manifest with all shards that were ever complete.

    Raises:
      ValueError: shards with this prefix were made from something else.
    """
    manifest = Manifest(prefix.with_name(prefix.name + ".manifest.json"), made_from)
    present = {p.name for p in prefix.parent.glob(f"{_escape(prefix.name)}-*-of-*.tfrecord")}
    advice = f"Choose another --output_file_prefix, or remove them: rm {prefix}-*-of-*.tfrecord"
    if not manifest.path.exists():
        if present:
            raise ValueError(f"{prefix}-*: records of unknown origin are there. {advice}")
        return manifest
    content = json.loads(manifest.path.read_text("utf-8"))
    before = content["made_from"]
    if before != made_from:
        if present:
            keys = [k for k in made_from if before.get(k) != made_from[k]]
            changes = ", ".join(f"{k}: {before.get(k)!r} then, {made_from[k]!r} now" for k in keys)
            raise ValueError(
                f"{prefix}-*: the records there were made from other input or with other flags "
                f"({changes}). {advice}"
            )
        return manifest
    for name, row in content["shards"].items():
        problems = [Problem(*problem) for problem in row.pop("problems")]
        manifest.shards[name] = ShardSummary(**row, problems=problems)
    return manifest


def _escape(name: str) -> str:
    """Quote what `glob` would not take literally."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
