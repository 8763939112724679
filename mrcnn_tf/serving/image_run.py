"""A SavedModel over many image files: detections into a file, drawings into a folder.

Reading goes on before the network and drawing behind it, in threads, while it calculates. What
cannot be read is noted by name, and the others go on.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.images import finding, passing, reading, storage
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.results import column_runs
from mrcnn_tf.results.detection import Detection, ImageDetections
from mrcnn_tf.serving import (
    answers,
    any_predictor,
    drawn,
    first_call,
    other_forms,
    output_folder,
    predictor,
    read_ahead,
    tiles,
    unread,
)
from mrcnn_tf.serving.output_folder import OutputFolder
from mrcnn_tf.serving.results_file import ResultsFile

_MAX_DRAWN = 4096  # pixels of the longer side of a drawing where images are cut into tiles

_MAX_THREADS = 8  # that read and draw; a network on a GPU keeps about as many busy


def _reduced(
    pixels: np.ndarray, detections: Sequence[Detection]
) -> tuple[np.ndarray, list[Detection]]:
    """Leave out rows and columns, alike in both, until `_MAX_DRAWN` is reached."""
    step = -(-max(pixels.shape[:2]) // _MAX_DRAWN)
    if step == 1:
        return pixels, [*detections]
    pixels = pixels[::step, ::step]

    def reduced(one: Detection) -> Detection:
        mask = one.mask
        if mask is not None:
            mask = column_runs.from_rle(mask).every(step).to_rle(*pixels.shape[:2])
        keypoints = one.keypoints
        if keypoints is not None:
            keypoints = keypoints._replace(points=keypoints.points / step)
        return one._replace(box=one.box / step, mask=mask, keypoints=keypoints)

    return pixels, [reduced(one) for one in detections]


class _Read(NamedTuple):
    """An image on its way to the network.

    Attributes:
      number: its place in the run.
      name: of the image.
      path: of its file.
      pixels: uint8 [h, w, 3], to be drawn into or cut out of; None if neither is wanted.
      prepared: for the network.
      turned: an EXIF orientation was applied.
    """

    number: int
    name: str
    path: str
    pixels: np.ndarray | None
    prepared: predictor.Prepared
    turned: bool


class _Large(NamedTuple):
    """An image that is read while no other is on its way; `reading.alone` says why."""

    name: str
    path: str


class _Outcome(NamedTuple):
    """What came of an image.

    Attributes:
      name: of the image.
      rows: its detections, as they are written.
      failure: what went wrong; "" if nothing did.
      turned: an EXIF orientation was applied.
      written: what came of it in other forms, if any.
      may_pass: whether the failure says nothing of the image, see `passing.py`.
    """

    name: str
    rows: list[dict]
    failure: str
    turned: bool
    written: other_forms.Written | None = None
    may_pass: bool = False


def _failed(name: str, error: Exception, turned: bool = False) -> _Outcome:
    return _Outcome(name, [], reading.reason(error), turned, may_pass=passing.may_pass(error))


class Rows(Protocol):
    """Takes detections one by one: a `ResultsFile`, or who keeps them."""

    def add(self, row: dict) -> None:
        """Take one, as COCO's results have it."""
        ...


class ImageRun:
    """One run over a list of images.

    Attributes:
      failures: what went wrong, by the image's name.
      may_pass: the names of those of them for which a second try is worth it, see `passing.py`.
      num_turned: images whose EXIF orientation was applied.
    """

    def __init__(
        self,
        detect: any_predictor.AnyPredictor,
        drawn_dir: str | None,
        threshold: float,
        forms: other_forms.OtherForms | None = None,
        tiling: tiles.Tiling | None = None,
        read: Callable[[str, bool], reading.UprightImage] | None = None,
        *,
        quiet: bool = False,
    ):
        """Prepare.

        Args:
          detect: finds objects.
          drawn_dir: where drawings go; None draws none.
          threshold: score from which on objects are drawn.
          forms: other forms in which results are wanted.
          tiling: how images are cut; None for whole ones.
          read: reads what a path names, `defer_large` as for `reading.read`; None for files. Not
            called for images that are cut.
          quiet: nothing is printed.
        """
        self._detect = detect
        self._call = detect.call if quiet else first_call.told(detect)
        self._read_file = read
        self._drawn_dir = drawn_dir
        self._threshold = threshold
        self._forms = forms
        self._tiling = tiling
        self.failures: dict[str, str] = {}
        self.may_pass: set[str] = set()
        self.num_turned = 0

    def process(
        self,
        images: Sequence[tuple[str, str]],
        batch_size: int,
        results: Rows,
        show: Callable[[int], None],
    ) -> None:
        """Read, detect, write and draw.

        Args:
          images: (name, path) of each.
          batch_size: images per call of the network, at most.
          results: gets the detections, in the order of the images.
          show: called with the number of images that are done since.
        """

        def take(outcome: _Outcome) -> None:
            for row in outcome.rows:
                results.add(row)
            if outcome.failure:
                self.failures[outcome.name] = outcome.failure
            if outcome.may_pass:
                self.may_pass.add(outcome.name)
            self.num_turned += outcome.turned
            if self._forms is not None and outcome.written is not None:
                self._forms.add(outcome.written)
            show(1)

        if self._tiling is not None:
            # One by one: of large images, one is as much as memory should hold.
            for name, path in images:
                take(self._in_tiles(name, path, self._tiling, batch_size))
            return
        num_threads = max(2, min(_MAX_THREADS, os.cpu_count() or 1))
        with read_ahead.threads(num_threads) as pool:
            finished = read_ahead.InOrder[_Outcome](pool, 2 * num_threads + batch_size)

            def readable() -> Iterator[_Read]:
                for number, image in enumerate(
                    read_ahead.ahead(pool, self._read, enumerate(images), num_threads)
                ):
                    if isinstance(image, _Read):
                        yield image
                        continue
                    if isinstance(image, _Large):
                        image = self._alone(number, image)
                    finished.put(number, lambda outcome: outcome, image)

            batches = read_ahead.by_canvas(
                readable(), lambda image: image.prepared.canvas_hw, batch_size, 2 * batch_size
            )
            for batch in batches:
                for image, answer, row in self._answers(batch):
                    finished.put(image.number, self._finish, image, answer, row)
                for outcome in finished.ready():
                    take(outcome)
            for outcome in finished.rest():
                take(outcome)

    def _read(self, numbered: tuple[int, tuple[str, str]]) -> _Read | _Large | _Outcome:
        """Read and prepare an image that is not too large for it; in a thread."""
        number, (name, path) = numbered
        try:
            return self._prepare(number, name, path, self._open(path, defer_large=True))
        except reading.LargeImageError:
            return _Large(name, path)
        except (reading.UnusableImageError, tf.errors.OpError, MemoryError) as error:
            return _failed(name, error)

    def _alone(self, number: int, image: _Large) -> _Outcome:
        """Do everything with a large image, in the main thread: no other is begun meanwhile."""
        try:
            read = self._prepare(number, image.name, image.path, self._open(image.path))
        except (reading.UnusableImageError, tf.errors.OpError, MemoryError) as error:
            return _failed(image.name, error)
        ((_, answer, row),) = self._answers([read])
        return self._finish(read, answer, row)

    def _open(self, path: str, defer_large: bool = False) -> reading.UprightImage:
        if self._read_file is not None:
            return self._read_file(path, defer_large)
        return reading.read(path, defer_large=defer_large)

    def _prepare(self, number: int, name: str, path: str, image: reading.UprightImage) -> _Read:
        prepared = self._detect.prepare(image)
        is_used_again = self._drawn_dir is not None or self._forms is not None
        pixels = image.pixels if is_used_again else None
        return _Read(number, name, path, pixels, prepared, image.turned)

    def _answers(
        self, batch: Sequence[_Read]
    ) -> Iterator[tuple[_Read, answers.Answer | Exception, int]]:
        """Yield each image with its row of an answer, or with what went wrong.

        An image that fails does not take its batch along: the others are sent again, one by one.
        """
        try:
            answer = self._call([image.prepared for image in batch])
        except (tf.errors.OpError, ServerError, ValueError, MemoryError) as error:
            if len(batch) == 1:
                yield batch[0], error, 0
                return
            for image in batch:
                yield from self._answers([image])
            return
        for row, image in enumerate(batch):
            yield image, answer, row

    def _in_tiles(self, name: str, path: str, tiling: tiles.Tiling, batch_size: int) -> _Outcome:
        """Read an image, find objects in it tile by tile, and write what is wanted of them."""

        def detect_in(batch: Sequence[np.ndarray]) -> list[ImageDetections]:
            upright = [reading.UprightImage(tile, None, turned=False) for tile in batch]
            prepared = [self._detect.prepare(image) for image in upright]
            return predictor.detect(prepared, self._call, self._detect.read)

        try:
            image = reading.read(path, large=True)
            detections = tiles.detect(image.pixels, detect_in, tiling, batch_size)
        except (tf.errors.OpError, ServerError, ValueError, MemoryError) as error:
            return _failed(name, error)
        return self._write(name, path, image.pixels, detections, image.turned)

    def _finish(self, image: _Read, answer: answers.Answer | Exception, row: int) -> _Outcome:
        """Paste masks, and write what is wanted of an image; in a thread."""
        try:
            if isinstance(answer, Exception):
                raise answer
            detections = self._detect.read(answer, row)
        except (ValueError, MemoryError, ServerError, tf.errors.OpError) as error:
            return _failed(image.name, error, image.turned)
        return self._write(image.name, image.path, image.pixels, detections, image.turned)

    def _write(
        self,
        name: str,
        path: str,
        pixels: np.ndarray | None,
        detections: Sequence[Detection],
        turned: bool,
    ) -> _Outcome:
        """Write an image's other forms and its drawing, as far as they are wanted."""
        rows = [detection.to_coco(name) for detection in detections]
        failure, written = "", None
        try:
            if self._forms is not None and pixels is not None:
                written = self._forms.write(name, path, pixels, detections)
            if self._drawn_dir is not None and pixels is not None:
                self._draw(name, pixels, detections)
        except (OSError, ValueError, MemoryError, tf.errors.OpError) as error:
            failure = reading.reason(error)
        return _Outcome(name, rows, failure, turned, written)

    def _draw(self, name: str, pixels: np.ndarray, detections: Sequence[Detection]) -> None:
        assert self._drawn_dir is not None
        if self._tiling is not None:
            pixels, detections = _reduced(pixels, detections)
        drawn.write(drawn.path_of(self._drawn_dir, name), pixels, detections, self._threshold)


def run(
    model: any_predictor.AnyModel,
    patterns: str | Sequence[str],
    output_dir: str,
    score_threshold: float | None,
    batch_size: int,
    draw_images: bool = True,
    forms: Sequence[str] = (),
    tiling: tiles.Tiling | None = None,
) -> int:
    """Predict on everything that the patterns name, and print what happens.

    Args:
      model: see `any_predictor.load`.
      patterns: file, folder or glob, or several, see `finding.find_images`.
      output_dir: made if absent.
      score_threshold: of what is drawn; None for the one that the export suggests.
      batch_size: images per call, at most; those of one call share a canvas.
      draw_images: whether images with what was found are written.
      forms: other forms in which results are wanted, of `results.forms.NAMES`.
      tiling: how images are cut into tiles; None for whole ones.

    Returns:
      The exit code: 0, or 1 if an image failed.

    Raises:
      FileNotFoundError: no image, or no SavedModel.
      ServerError: the server does not answer, or not with an export of ours.
      ValueError: the SavedModel is not ours, or two images have the same name.
    """
    folder = OutputFolder(output_dir)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    images, others = finding.find_images(patterns, folder.written)
    print(f"{len(images)} image{'s' * (len(images) != 1)}; loading {model}", flush=True)
    detect = any_predictor.load(model)
    score_threshold, why = output_folder.threshold(
        score_threshold, detect.suggested_score_threshold
    )
    in_forms = other_forms.OtherForms(
        forms, detect.category_names, folder.forms, score_threshold, detect.keypoints
    )
    in_forms.check(images)
    this_run = ImageRun(
        detect,
        folder.drawn if draw_images else None,
        score_threshold,
        in_forms if forms else None,
        tiling,
    )
    storage.make_folder(folder.drawn if draw_images else output_dir)
    storage.remove(folder.unread)  # of an earlier run
    progress = ProgressBar("predicting", len(images), "images", stream=sys.stdout)
    try:
        with ResultsFile(folder.detections) as results, in_forms:
            this_run.process(images, batch_size, results, progress.add)
    except KeyboardInterrupt:
        progress.close()
        print(f"what was found until then is in {folder.detections}.incomplete")
        raise
    progress.close()
    output_folder.tell(
        folder,
        num_detections=results.num_rows,
        num_turned=this_run.num_turned,
        draws=draw_images,
        forms=forms,
        num_empty=in_forms.num_empty,
        score_threshold=score_threshold,
        why=why,
    )
    unread.tell(unread.list_all(others, this_run.failures), folder.unread)
    return 1 if this_run.failures else 0
