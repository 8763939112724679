"""The frames of a film on their way: read, seen by the network, tracked, written down, drawn.

Decoding goes on before the network in a thread of its own; pasting of masks and drawing behind it
in several; encoding in one. Only the tracker stands between them: it sees frames in their order.
All of them hold a bounded number of frames, however long the film is.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.images import drawing, reading
from mrcnn_tf.remote.failures import ServerError
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import (
    answers,
    any_predictor,
    drawn,
    film_reader,
    film_writer,
    first_call,
    predictor,
    read_ahead,
    tracking,
)
from mrcnn_tf.serving.lines_file import LinesFile

_MAX_THREADS = 4  # that prepare, paste and draw
_DECODED = 2  # frames that wait for the network
_MAX_UNANSWERED = 3  # calls in a row, after which a server is given up
_HELD = 16  # frames, beside those of a batch, that wait for it: those between frames looked at


@dataclasses.dataclass
class _OnItsWay:
    """A frame on its way from the file to the film.

    Attributes:
      place: of the frames that arrive, which are fewer than a camera takes.
      frame: as it was read.
      prepared: for the network; None for a frame that it does not look at.
      found: what it found; None likewise.
    """

    place: int
    frame: film_reader.Frame
    prepared: predictor.Prepared | None
    found: list[Detection] | None = None


class _Drawn(NamedTuple):
    """A frame that is drawn.

    Attributes:
      place: as in `_OnItsWay`.
      frame: as it was read.
      pixels: uint8 [h, w, 3], with what was found.
    """

    place: int
    frame: film_reader.Frame
    pixels: np.ndarray


class FrameLoop:
    """One way through a film.

    Attributes:
      num_frames: that are done.
      num_looked_at: of these, those that the network saw.
      num_detections: in these.
      failures: what went wrong, by number of a frame that a server did not answer.
      writer: of the drawn film, once there is a frame; None if none is drawn.
    """

    def __init__(
        self,
        detect: any_predictor.AnyPredictor,
        drawn_stem: str | None,
        threshold: float,
        every_nth: int,
        batch_size: int,
    ):
        """Prepare.

        Args:
          detect: the network.
          drawn_stem: path of the drawn film, see `film_writer.FilmWriter`; None if none is drawn.
          threshold: score from which on detections are drawn.
          every_nth: the network looks at the frames 0, n, 2n, ...
          batch_size: frames per call of the network, at most.
        """
        self.num_frames = self.num_looked_at = self.num_detections = 0
        self.failures: dict[int, str] = {}
        self.writer: film_writer.FilmWriter | None = None
        self._detect = detect
        self._call = first_call.told(detect)
        self._drawn_stem = drawn_stem
        self._threshold = threshold
        self._every_nth = every_nth
        self._batch_size = batch_size
        self._tracker = tracking.Tracker()
        self._shown: tuple[list[Detection], list[int]] = ([], [])
        self._num_unanswered = 0  # calls in a row

    def process(
        self,
        reader: film_reader.FilmReader,
        max_frames: int | None,
        lines: LinesFile,
        progress: ProgressBar,
        *,
        newest_only: bool,
    ) -> None:
        """Read, detect, track, write and draw.

        When it is left by an exception, Ctrl-C among them, the drawn film is ended behind the last
        frame that was written.

        Args:
          reader: of the film.
          max_frames: after which the run ends; None for all.
          lines: gets a line per frame that the network saw.
          progress: gets every frame.
          newest_only: frames for which the network has no time are dropped.
        """
        num_threads = max(2, min(_MAX_THREADS, os.cpu_count() or 1))
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_writer)
            encoder = stack.enter_context(read_ahead.threads(1, wait=True))
            pool = stack.enter_context(read_ahead.threads(num_threads))
            pasted = read_ahead.InOrder[_OnItsWay](pool, num_threads)
            drawn = read_ahead.InOrder[_Drawn](pool, num_threads)
            written = read_ahead.InOrder[None](encoder, num_threads)

            def write(finished: Iterator[_Drawn]) -> None:
                for one in finished:
                    written.put(one.place, self._write, reader, one)
                    collections.deque(written.ready(), 0)  # raises what went wrong

            def follow(finished: Iterator[_OnItsWay]) -> None:
                for one in finished:
                    self._track(one, lines)
                    if self._drawn_stem is not None:
                        drawn.put(one.place, self._draw, one, *self._shown)
                        write(drawn.ready())
                    self.num_frames += 1
                    progress.add()

            frames = read_ahead.in_thread(reader.frames(), _DECODED, newest_only=newest_only)
            stack.callback(frames.close)
            some = enumerate(_first(frames, max_frames))
            for held in self._batches(read_ahead.ahead(pool, self._prepare, some, num_threads)):
                answer = self._answer(held)
                row = 0
                for one in held:
                    pasted.put(one.place, self._paste, one, answer, row)
                    row += one.prepared is not None
                    follow(pasted.ready())
            follow(pasted.rest())
            write(drawn.rest())
            collections.deque(written.rest(), 0)
            if self.writer is not None:
                self.writer.copy(reader.rest)

    def _prepare(self, placed: tuple[int, film_reader.Frame]) -> _OnItsWay:
        """Make a frame ready for the network, if it is to see it; in a thread."""
        place, frame = placed
        if place % self._every_nth:
            return _OnItsWay(place, frame, None)
        image = reading.UprightImage(frame.pixels, None, False)
        return _OnItsWay(place, frame, self._detect.prepare(image))

    def _batches(self, frames: Iterator[_OnItsWay]) -> Iterator[list[_OnItsWay]]:
        """Yield frames in their order, at most `batch_size` of one canvas for the network."""
        held: list[_OnItsWay] = []
        canvases: list[tuple[int, ...] | None] = []
        for one in frames:
            if one.prepared is not None:
                canvas_hw = one.prepared.canvas_hw
                if canvases and canvases[0] != canvas_hw:
                    yield held
                    held, canvases = [], []
                canvases.append(canvas_hw)
            held.append(one)
            # Without a frame for the network, none waits for it.
            if len(canvases) in (0, self._batch_size) or len(held) == self._batch_size + _HELD:
                yield held
                held, canvases = [], []
        if held:
            yield held

    def _answer(self, held: Sequence[_OnItsWay]) -> answers.Answer | None:
        """Call the network on those frames that it is to see.

        A server may refuse one: frames that it does not answer are noted, and the film goes on,
        until it has answered none of `_MAX_UNANSWERED` calls in a row.
        """
        seen = [one for one in held if one.prepared is not None]
        if not seen:
            return None
        try:
            answer = self._call([one.prepared for one in seen if one.prepared is not None])
        except ServerError as error:
            self._num_unanswered += 1
            if self._num_unanswered == _MAX_UNANSWERED:
                raise
            for one in seen:
                one.prepared = None
                self.failures[one.frame.number] = reading.reason(error)
            return None
        self._num_unanswered = 0
        return answer

    def _paste(self, one: _OnItsWay, answer: answers.Answer | None, row: int) -> _OnItsWay:
        """Read a frame's row of an answer; in a thread."""
        if one.prepared is not None:
            assert answer is not None
            try:
                one.found = self._detect.read(answer, row)
            except answers.RefusedPictureError as error:
                self.failures[one.frame.number] = reading.reason(error)
        return one

    def _track(self, one: _OnItsWay, lines: LinesFile) -> None:
        """Number what was found, write it down, and show it from now on."""
        if one.found is None:
            return
        boxes = np.array([detection.box for detection in one.found]).reshape(-1, 4)
        categories = [detection.category_id for detection in one.found]
        numbers = self._tracker.update(one.frame.time, boxes, categories)
        rows = [
            detection.to_coco(one.frame.number) | {"track_id": number}
            for detection, number in zip(one.found, numbers, strict=True)
        ]
        seconds = round(one.frame.time, 6)
        lines.add({"frame": one.frame.number, "time": seconds, "detections": rows})
        self.num_looked_at += 1
        self.num_detections += len(rows)
        self._shown = (one.found, numbers)

    def _draw(
        self,
        one: _OnItsWay,
        found: Sequence[Detection],
        numbers: Sequence[int],
    ) -> _Drawn:
        """Draw what is to be shown into a frame; in a thread."""
        shown = [k for k, detection in enumerate(found) if detection.score >= self._threshold]
        pixels = drawing.draw_detections(
            one.frame.pixels,
            np.array([found[k].box for k in shown], np.float32).reshape(-1, 4),
            masks=[_mask(found[k], one.frame) for k in shown],
            names=[found[k].category for k in shown],
            scores=[found[k].score for k in shown],
            color_ids=[numbers[k] for k in shown],
            enlarge=False,
            **drawn.keypoints([found[k] for k in shown]),
        )
        return _Drawn(one.place, one.frame, pixels)

    def _write(self, reader: film_reader.FilmReader, one: _Drawn) -> None:
        """Encode a frame; in the one thread that does."""
        assert self._drawn_stem is not None
        if self.writer is None:
            height, width = one.pixels.shape[:2]
            self.writer = film_writer.FilmWriter(self._drawn_stem, reader, (height, width))
        self.writer.write(one.frame, one.pixels)

    def _close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _mask(detection: Detection, frame: film_reader.Frame) -> dict | None:
    """Return a mask to be drawn into a frame; None if the film has changed its size meanwhile."""
    if detection.mask is None or tuple(detection.mask["size"]) != frame.pixels.shape[:2]:
        return None
    return detection.mask


def _first(frames: Iterator[film_reader.Frame], count: int | None) -> Iterator[film_reader.Frame]:
    """Yield the first frames; unlike `islice`, without waiting for one more."""
    if count is None:
        yield from frames
        return
    for number, frame in enumerate(frames, start=1):
        yield frame
        if number == count:
            return
