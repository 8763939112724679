"""A network over a film or a camera: detections into a file of lines, the film with them drawn."""

import os
import sys

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.images import storage
from mrcnn_tf.serving import any_predictor, film_reader, film_source, output_folder
from mrcnn_tf.serving.frame_loop import FrameLoop
from mrcnn_tf.serving.lines_file import LinesFile

DETECTIONS = "detections.jsonl"  # in the output folder
_MAX_NAMED = 20  # frames that a server did not answer


def run(
    model: any_predictor.AnyModel,
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
      The exit code: 0, or 1 if the film was damaged or broke off, or a server refused a frame.

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
    reader = film_reader.FilmReader(source, copy=draw_film)
    print(f"{source.name}: {_described(reader)}; loading {model}", flush=True)
    detect = any_predictor.load(model)
    score_threshold, why = output_folder.threshold(
        score_threshold, detect.suggested_score_threshold
    )
    this_run = FrameLoop(detect, stem, score_threshold, every_nth, batch_size)
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
    this_run: FrameLoop,
    reader: film_reader.FilmReader,
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


def _described(reader: film_reader.FilmReader) -> str:
    height, width = reader.stored_hw
    count = "" if reader.num_frames is None else f"about {reader.num_frames} frames of "
    rate = f"{float(reader.rate):.6g}"
    kinds = " and ".join(sorted({stream.type for stream in reader.copied}))
    copied = f", {kinds} copied" if kinds else ""
    return f"{count}{width} x {height} at {rate} frames per second{copied}"


def _report(reader: film_reader.FilmReader, this_run: FrameLoop) -> int:
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
    for number, why in sorted(this_run.failures.items())[:_MAX_NAMED]:
        print(f"FAILED {reader.name}, frame {number}: {why}")
    if len(this_run.failures) > _MAX_NAMED:
        print(f"FAILED {reader.name}: {len(this_run.failures)} frames in all")
    return 1 if reader.num_damaged or reader.broke_off or this_run.failures else 0
