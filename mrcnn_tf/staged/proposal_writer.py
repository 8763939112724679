"""Writes proposals to files, in the format of `proposals.py`.

A folder is written beside its place and renamed when it is complete. On a file system that is no
disk it is copied instead, `meta.json` last. What has a `meta.json` is whole.
"""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mrcnn_tf.data import record_files
from mrcnn_tf.staged import proposals

_LARGEST_SCORE = 65504.0  # of float16


class ProposalWriter:
    """Writes a folder, batch by batch; a context manager.

    Shape letters: `B` images, `P` proposals.

    Args:
      folder: where it will be; proposals that are there are replaced at the end.
      made_from: what network and weights, for meta.json; JSON values.
      files: the record set whose images will be added.

    Raises:
      FileExistsError: (on entering) the folder is there and holds something else.
      ValueError: (on leaving) some images of the record set were not added.
    """

    def __init__(self, folder: str, made_from: dict[str, Any], files: Sequence[str]) -> None:
        self._folder = folder.rstrip("/")
        self._made_from, self._files = made_from, files
        self._ids: dict[bytes, None] = {}
        self._sizes_hw: list[tuple[int, int]] = []
        self._row_splits = [0]
        self._num_per_image = 0

    def __enter__(self) -> "ProposalWriter":
        """Begin."""
        whole = tf.io.gfile.exists(os.path.join(self._folder, proposals.META))
        if tf.io.gfile.exists(self._folder) and not whole:
            raise FileExistsError(f"{self._folder} is there, and is no folder of proposals")
        parent = os.path.dirname(self._folder) or "."
        tf.io.gfile.makedirs(parent)
        self._is_local = os.path.isdir(parent)
        # Beside its place, if that is on a disk: there may be gigabytes.
        partial = self._folder + ".partial" if self._is_local else tempfile.mkdtemp()
        self._partial = pathlib.Path(partial)
        shutil.rmtree(self._partial, ignore_errors=True)  # what an interrupted run left
        self._partial.mkdir()
        self._boxes = _GrowingArray(self._partial / "boxes.npy", "<u2", (4,))
        self._scores = _GrowingArray(self._partial / "scores.npy", "<f2", ())
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        """Complete the folder; after an error, leave none."""
        self._boxes.close()
        self._scores.close()
        try:
            if error_type is None:
                self._complete()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _complete(self) -> None:
        num_records = record_files.count_records(self._files)
        if len(self._ids) != num_records:
            raise ValueError(
                f"{self._folder}: proposals of {len(self._ids):,} images were added, but there are "
                f"{num_records:,} records ({self._files[0]}, ...)"
            )
        ids = list(self._ids)
        np.savez(
            self._partial / "images.npz",
            ids=np.array(ids, bytes),
            row_splits=np.array(self._row_splits, np.int64),
            sizes_hw=np.array(self._sizes_hw, np.int32).reshape(-1, 2),
        )
        meta = {
            "format_version": proposals.FORMAT_VERSION,
            "num_images": len(ids),
            "ids_sha256": proposals.fingerprint(ids),
            "digests": {
                image.source_id.decode(): image.digest
                for image in record_files.sample_images(self._files)
            },
            "num_boxes": self._row_splits[-1],
            "num_per_image": self._num_per_image,
            "made_from": self._made_from,
        }
        if tf.io.gfile.exists(self._folder):
            tf.io.gfile.rmtree(self._folder)
        (self._partial / proposals.META).write_text(json.dumps(meta, indent=1) + "\n", "utf-8")
        if self._is_local:
            os.replace(self._partial, self._folder)
            return
        tf.io.gfile.makedirs(self._folder)
        for name in ("boxes.npy", "scores.npy", "images.npz", proposals.META):
            tf.io.gfile.copy(str(self._partial / name), os.path.join(self._folder, name))

    @property
    def num_added(self) -> int:
        """Images so far."""
        return len(self._ids)

    @property
    def num_boxes(self) -> int:
        """Proposals so far."""
        return self._row_splits[-1]

    def add(
        self,
        *,
        source_id: np.ndarray,
        image_size_hw: np.ndarray,
        original_size_hw: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        valid: np.ndarray,
    ) -> None:
        """Add the proposals of one batch; filler images (all-zero source id) are skipped.

        Args:
          source_id: uint8 [B, SOURCE_ID_BYTES], zero-padded.
          image_size_hw: [B, 2], the resized image inside the canvas, pixels.
          original_size_hw: [B, 2], the stored image, pixels.
          boxes: float [B, P, (y1, x1, y2, x2)], network-input pixels, within the image, best
            first.
          scores: float [B, P].
          valid: bool [B, P].

        Raises:
          ValueError: an image was added before, or a valid box or score is not finite.
        """
        self._num_per_image = max(self._num_per_image, boxes.shape[1])
        for b, row in enumerate(source_id):
            image_id = np.asarray(row, np.uint8).tobytes().rstrip(b"\0")
            if not image_id:
                continue
            if image_id in self._ids:
                raise ValueError(f"image {image_id.decode()!r} was added before: is its id unique?")
            kept = np.asarray(valid[b], bool)
            image_boxes, image_scores = np.asarray(boxes[b])[kept], np.asarray(scores[b])[kept]
            if not (np.isfinite(image_boxes).all() and np.isfinite(image_scores).all()):
                raise ValueError(
                    f"image {image_id.decode()!r}: a proposal's box or score is not finite"
                )
            fractions = quantise(image_boxes, image_size_hw[b])
            has_area = (fractions[:, 2:] > fractions[:, :2]).all(axis=1)
            self._boxes.append(fractions[has_area])
            self._scores.append(
                np.clip(image_scores[has_area], -_LARGEST_SCORE, _LARGEST_SCORE).astype("<f2")
            )
            self._ids[image_id] = None
            height, width = (int(side) for side in original_size_hw[b])
            self._sizes_hw.append((height, width))
            self._row_splits.append(self._row_splits[-1] + int(has_area.sum()))


def quantise(boxes: np.ndarray, image_size_hw: np.ndarray) -> np.ndarray:
    """Turn pixels into uint16 steps of 1 / 65535 of the image, rounded to the nearest.

    Args:
      boxes: float [n, (y1, x1, y2, x2)], pixels; what lies outside is clipped.
      image_size_hw: [(height, width)] of the image in the same pixels.
    """
    sides = np.tile(np.asarray(image_size_hw, np.float64), 2)
    steps = np.asarray(boxes, np.float64) / sides * proposals.STEPS
    return np.clip(np.rint(steps), 0, proposals.STEPS).astype("<u2").reshape(-1, 4)


class _GrowingArray:
    """A .npy file that rows are appended to; its header is written again when it is closed."""

    def __init__(self, path: pathlib.Path, dtype: str, row_shape: tuple[int, ...]) -> None:
        self._dtype, self._row_shape, self._rows = dtype, row_shape, 0
        self._file = open(path, "wb")  # noqa: SIM115
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        assert rows.dtype == np.dtype(self._dtype)
        assert rows.shape[1:] == self._row_shape
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self._rows += len(rows)

    def close(self) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room for a first dimension of any length.
        header = {"descr": self._dtype, "fortran_order": False}
        np.lib.format.write_array_header_1_0(
            self._file, header | {"shape": (self._rows, *self._row_shape)}
        )
