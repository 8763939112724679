"""A network over a film or a camera: detections into a file of lines, the film with them drawn.

Decoding goes on before the network in a thread of its own; pasting of masks and drawing behind it
in several; encoding in one. Only the tracker stands between them: it sees frames in their order.
All of them hold a bounded number of frames, however long the film is.
"""

import collections
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.images import drawing, reading, storage
from mrcnn_tf.remote.server import Server
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.serving import (
    answers,
    any_predictor,
    film,
    film_source,
    output_folder,
    predictor,
    read_ahead,
    remote_predictor,
    tracking,
)
from mrcnn_tf.serving.lines_file import LinesFile

DETECTIONS = "detections.jsonl"  # in the output folder
_MAX_THREADS = 4  # that prepare, paste and draw
_DECODED = 2  # frames that wait for the network
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
    frame: film.Frame
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
    frame: film.Frame
    pixels: np.ndarray


class FilmRun:
    """One run over a film.

    Attributes:
      num_frames: that are done.
      num_looked_at: of these, those that the network saw.
      num_detections: in these.
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
          drawn_stem: path of the drawn film, see `film.FilmWriter`; None if none is drawn.
          threshold: score from which on detections are drawn.
          every_nth: the network looks at the frames 0, n, 2n, ...
          batch_size: frames per call of the network, at most.
        """
        self.num_frames = self.num_looked_at = self.num_detections = 0
        self.writer: film.FilmWriter | None = None
        self._detect = detect
        self._drawn_stem = drawn_stem
        self._threshold = threshold
        self._every_nth = every_nth
        self._batch_size = batch_size
        self._tracker = tracking.Tracker()
        self._shown: tuple[list[Detection], list[int]] = ([], [])
        self._called = isinstance(detect, remote_predictor.RemotePredictor)

    def process(
        self,
        reader: film.FilmReader,
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
                answer = self._call([one.prepared for one in held if one.prepared is not None])
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

    def _prepare(self, placed: tuple[int, film.Frame]) -> _OnItsWay:
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

    def _call(self, batch: Sequence[predictor.Prepared]) -> answers.Answer | None:
        """Call the network; say why nothing moves while TensorFlow prepares it."""
        if not batch:
            return None
        start = time.monotonic()
        if not self._called:
            print("first call: TensorFlow prepares the graph, which takes a while", flush=True)
        answer = self._detect.call(batch)
        if not self._called:
            print(f"first call took {time.monotonic() - start:.1f} s", flush=True)
            self._called = True
        return answer

    def _paste(self, one: _OnItsWay, answer: answers.Answer | None, row: int) -> _OnItsWay:
        """Read a frame's row of an answer; in a thread."""
        if one.prepared is not None:
            assert answer is not None
            one.found = self._detect.read(answer, row)
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
        )
        return _Drawn(one.place, one.frame, pixels)

    def _write(self, reader: film.FilmReader, one: _Drawn) -> None:
        """Encode a frame; in the one thread that does."""
        assert self._drawn_stem is not None
        if self.writer is None:
            height, width = one.pixels.shape[:2]
            self.writer = film.FilmWriter(self._drawn_stem, reader, (height, width))
        self.writer.write(one.frame, one.pixels)

    def _close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _mask(detection: Detection, frame: film.Frame) -> dict | None:
    """Return a mask to be drawn into a frame; None if the film has changed its size meanwhile."""
    if detection.mask is None or tuple(detection.mask["size"]) != frame.pixels.shape[:2]:
        return None
    return detection.mask


def _first(frames: Iterator[film.Frame], count: int | None) -> Iterator[film.Frame]:
    """Yield the first frames; unlike `islice`, without waiting for one more."""
    if count is None:
        yield from frames
        return
    for number, frame in enumerate(frames, start=1):
        yield frame
        if number == count:
            return


def run(
    model: str | Server,
    source: film_source.Source,
    output_dir: str,
    score_threshold: float | None,
    batch_size: int,
    draw_film: bool = True,
    every_nth: int = 1,
    max_frames: int | None = None,
) -> int:
    """Predict on a film or a camera, and print what happens.

    Args:
      model: folder that `python -m mrcnn_tf.export` wrote, or where it is served.
      source: see `film_source.find`.
      output_dir: made if absent; on this machine.
      score_threshold: of what is drawn; None for the one that the export suggests.
      batch_size: frames per call, at most.
      draw_film: whether the film with what was found is written.
      every_nth: the network looks at the frames 0, n, 2n, ...; what it found in the last of them is
        drawn into those between.
      max_frames: of the film, after which the run ends; None for all.

    Returns:
      The exit code: 0, or 1 if the film was damaged or broke off.

    Raises:
      FileNotFoundError: no SavedModel.
      ServerError: the server does not answer, or not with an export of ours.
      OSError: no film or camera, or the output cannot be written.
      ValueError: the SavedModel is not ours, or the film cannot be read as one.
    """
    if storage.is_remote(output_dir):
        raise ValueError(f"{output_dir}: what is found in films is written on this machine only")
    stem = os.path.join(output_dir, output_folder.DRAWN, source.name) if draw_film else None
    if stem is not None and os.path.realpath(stem) == os.path.realpath(source.path):
        raise ValueError(
            f"{source.path}: the drawn film would take its place: another --output_dir"
        )
    reader = film.FilmReader(source, copy=draw_film)
    print(f"{source.name}: {_described(reader)}; loading {model}", flush=True)
    detect = any_predictor.load(model)
    score_threshold, why = output_folder.threshold(
        score_threshold, detect.suggested_score_threshold
    )
    this_run = FilmRun(detect, stem, score_threshold, every_nth, batch_size)
    os.makedirs(output_dir, exist_ok=True)
    counts = [count for count in (reader.num_frames, max_frames) if count is not None]
    progress = ProgressBar("predicting", min(counts, default=None), "frames", stream=sys.stdout)
    lines_path = os.path.join(output_dir, DETECTIONS)
    try:
        with LinesFile(lines_path) as lines:
            _process(this_run, reader, source, max_frames, lines, progress)
        if this_run.writer is not None:
            this_run.writer.complete()
    except BaseException:
        progress.close()
        kept = [LinesFile.incomplete(lines_path)]
        if this_run.writer is not None:
            kept.append(this_run.writer.incomplete_path)
        if this_run.num_frames:
            print(f"what was done until then is in {' and '.join(filter(os.path.exists, kept))}")
        raise
    progress.close()
    print(
        f"{this_run.num_detections} detections in {this_run.num_looked_at} of "
        f"{this_run.num_frames} frames: {lines_path}"
    )
    if this_run.writer is not None:
        print(
            f"those with a score of {score_threshold} or more are drawn{why}: "
            f"{this_run.writer.path}"
        )
    return _report(reader, this_run)


def _process(
    this_run: FilmRun,
    reader: film.FilmReader,
    source: film_source.Source,
    max_frames: int | None,
    lines: LinesFile,
    progress: ProgressBar,
) -> None:
    """Go through the film; Ctrl-C is the end of a camera's, and breaks off another."""
    try:
        this_run.process(reader, max_frames, lines, progress, newest_only=source.is_camera)
    except KeyboardInterrupt:
        if not source.is_camera or this_run.num_frames == 0:
            raise
    if this_run.num_frames == 0:
        why = reader.broke_off or "not one of its frames can be decoded"
        raise ValueError(f"{source.path}: {why}")


def _described(reader: film.FilmReader) -> str:
    height, width = reader.stored_hw
    count = "" if reader.num_frames is None else f"about {reader.num_frames} frames of "
    rate = f"{float(reader.rate):.6g}"
    kinds = " and ".join(sorted({stream.type for stream in reader.copied}))
    copied = f", {kinds} copied" if kinds else ""
    return f"{count}{width} x {height} at {rate} frames per second{copied}"


def _report(reader: film.FilmReader, this_run: FilmRun) -> int:
    """Name what is not as it should be; return the exit code."""
    writer = this_run.writer
    if writer is not None:
        for stream in reader.left_out + writer.left_out:
            print(f"PASSED OVER {stream}")
        if writer.num_refused:
            print(f"PASSED OVER {writer.num_refused} packets of sound or subtitles, out of order")
    if reader.num_damaged:
        print(f"DAMAGED {reader.name}: {reader.num_damaged} frames are lost, or shown in part")
    if reader.broke_off:
        print(f"BROKEN OFF {reader.name} after {this_run.num_frames} frames: {reader.broke_off}")
    return 1 if reader.num_damaged or reader.broke_off else 0
