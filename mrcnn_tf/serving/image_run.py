"""A SavedModel over many image files: detections into a file, drawings into a folder.

What cannot be read is noted by name, and the others go on.
"""

import hashlib
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.images import drawing, finding, reading, storage
from mrcnn_tf.serving import predictor
from mrcnn_tf.serving.results_file import ResultsFile

DETECTIONS, DRAWN = "detections.json", "drawn"  # in the output folder
_MAX_NAMED = 20  # of files that are no images; behind, their number is said
_MAX_NAME_BYTES = 255  # of file systems
_DRAWN_SUFFIXES = (".jpg", ".jpeg", ".png")

NamedImage = tuple[str, reading.UprightImage]


def drawing_path(drawn_dir: str, name: str) -> str:
    """Return where an image's drawing goes: its own name, with .png behind unless JPEG or PNG.

    A name that so becomes too long is cut, and a few digits of its hash tell it from others.
    """
    kept = name.lower().endswith(_DRAWN_SUFFIXES)
    folder, last = os.path.split(name if kept else name + ".png")
    encoded = os.fsencode(last)
    if len(encoded) > _MAX_NAME_BYTES:
        end = b"-" + hashlib.sha256(encoded).hexdigest()[:8].encode() + encoded[-4:]
        # Cut within a letter, what is left of it goes too.
        start = encoded[: _MAX_NAME_BYTES - len(end)].decode("utf-8", "ignore")
        last = start + os.fsdecode(end)
    return os.path.join(drawn_dir, folder, last)


def draw(
    image: reading.UprightImage,
    detections: Sequence[predictor.Detection],
    score_threshold: float,
) -> np.ndarray:
    """Draw the detections with at least that score; returns uint8 [h', w', 3]."""
    shown = [d for d in detections if d.score >= score_threshold]
    return drawing.draw_detections(
        image.pixels,
        np.array([d.box for d in shown], np.float32).reshape(-1, 4),
        masks=[d.mask for d in shown],
        names=[d.category for d in shown],
        scores=[d.score for d in shown],
    )


class ImageRun:
    """One run over a list of images.

    Attributes:
      failures: what went wrong, by the image's name.
      num_turned: images whose EXIF orientation was applied.
    """

    def __init__(self, detect: predictor.Predictor, drawn_dir: str, threshold: float):
        self._detect = detect
        self._drawn_dir = drawn_dir
        self._threshold = threshold
        self.failures: dict[str, str] = {}
        self.num_turned = 0
        self._called = False

    def process(self, paths: Sequence[tuple[str, str]], results: ResultsFile) -> None:
        """Read, detect, write and draw one batch of (name, path)."""
        images = [(name, image) for name, path in paths if (image := self._read(name, path))]
        for (name, image), detections in self._detect_each(images):
            for detection in detections:
                results.add(detection.to_coco(name))
            try:
                self._draw(name, image, detections)
            except (OSError, ValueError, MemoryError, tf.errors.OpError) as error:
                self._fail(name, error)

    def _read(self, name: str, path: str) -> reading.UprightImage | None:
        try:
            image = reading.read(path)
        except (reading.UnusableImageError, MemoryError) as error:
            self._fail(name, error)
            return None
        self.num_turned += image.turned
        return image

    def _draw(
        self, name: str, image: reading.UprightImage, detections: Sequence[predictor.Detection]
    ) -> None:
        path = drawing_path(self._drawn_dir, name)
        buffer = io.BytesIO()
        kind = "PNG" if path.lower().endswith(".png") else "JPEG"
        # PNG has no quality and ignores it.
        Image.fromarray(draw(image, detections, self._threshold)).save(buffer, kind, quality=95)
        storage.write(path, buffer.getvalue())

    def _detect_each(
        self, images: Sequence[NamedImage]
    ) -> Iterator[tuple[NamedImage, list[predictor.Detection]]]:
        """Yield each image with its detections; one that fails does not take its batch along."""
        if not images:
            return
        try:
            batch = self._call(images)
        except (tf.errors.OpError, ValueError, MemoryError) as error:
            if len(images) == 1:
                self._fail(images[0][0], error)
                return
            for image in images:
                yield from self._detect_each([image])
            return
        yield from zip(images, batch, strict=True)

    def _call(self, images: Sequence[NamedImage]) -> list[list[predictor.Detection]]:
        """Call the network; say why nothing moves while TensorFlow prepares it."""
        start = time.monotonic()
        if not self._called:
            print("first call: TensorFlow prepares the graph, which takes a while", flush=True)
        batch = self._detect([i.encoded for _, i in images], [i.pixels for _, i in images])
        if not self._called:
            print(f"first call took {time.monotonic() - start:.1f} s", flush=True)
            self._called = True
        return batch

    def _fail(self, name: str, error: Exception) -> None:
        self.failures[name] = reading.reason(error)


def run(
    saved_model: str,
    patterns: str | Sequence[str],
    output_dir: str,
    score_threshold: float,
    batch_size: int,
) -> int:
    """Predict on everything that the patterns name, and print what happens.

    Args:
      saved_model: folder that `python -m mrcnn_tf.export` wrote.
      patterns: file, folder or glob, or several, see `finding.find_images`.
      output_dir: made if absent.
      score_threshold: of what is drawn.
      batch_size: images per call.

    Returns:
      The exit code: 0, or 1 if an image failed.

    Raises:
      FileNotFoundError: no image, or no SavedModel.
      ValueError: the SavedModel is not ours, or two images have the same name.
    """
    drawn_dir = os.path.join(output_dir, DRAWN)
    results_path = os.path.join(output_dir, DETECTIONS)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    written = (drawn_dir, results_path, results_path + ".incomplete")
    images, others = finding.find_images(patterns, written)
    print(f"{len(images)} image{'s' * (len(images) != 1)}; loading {saved_model}", flush=True)
    this_run = ImageRun(predictor.Predictor(saved_model), drawn_dir, score_threshold)
    tf.io.gfile.makedirs(drawn_dir)
    progress = ProgressBar("predicting", len(images), "images", stream=sys.stdout)
    with ResultsFile(results_path) as results:
        for first in range(0, len(images), batch_size):
            batch = images[first : first + batch_size]
            this_run.process(batch, results)
            progress.add(len(batch))
    progress.close()
    if this_run.num_turned:
        print(f"{this_run.num_turned} turned upright as their EXIF orientation says")
    print(f"{results.num_rows} detections: {results_path}")
    print(f"those with a score of {score_threshold} or more are drawn: {drawn_dir}")
    _report(others, this_run.failures)
    return 1 if this_run.failures else 0


def _report(others: Sequence[str], failures: dict[str, str]) -> None:
    """Name every file that was found and has no detections."""
    for name in others[:_MAX_NAMED]:
        print(f"PASSED OVER {name}: not an image")
    if len(others) > _MAX_NAMED:
        print(f"PASSED OVER {len(others) - _MAX_NAMED} more files that are no images")
    for name, why in failures.items():
        print(f"FAILED {name}: {why}")
