"""Frames per second of a film in `mrcnn_tf.predict`, beside the bare network.

R50-FPN with random weights that finds 100 objects in every frame; a film of 720 x 1280 in H.264.
The command's loop (decode, resize, network, paste, track, write detections; with and without
drawing and encoding, all 100 objects drawn) and the exported network alone, on input that lies
ready, take turns in one process.

    python benchmarks/film.py

prints one JSON line: median seconds per frame, frames per second, and the loop's ratio to the bare
network. `--every_nth` has the loop look at every n-th frame only; the bare network's time is then
that of as many calls.
"""

import argparse
import io
import os
import pathlib
import statistics
import sys
import tempfile
from fractions import Fraction

import numpy as np
import scene
import timing

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

RATE = 30


def write_film(path: str, num_frames: int, height: int, width: int) -> None:
    """Draw smooth noise that moves by two pixels a frame."""
    import av

    pixels = np.clip(128 + 50 * scene.image(height, width, seed=0), 0, 255).astype(np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for k in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels, 2 * k, axis=1), "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def measure(folder: pathlib.Path, args: argparse.Namespace) -> dict:
    """Time bare network and loops in turn."""
    import random_detector
    import tensorflow as tf

    from mrcnn_tf.console.progress_bar import ProgressBar
    from mrcnn_tf.images import reading
    from mrcnn_tf.serving import film_reader, film_source, frame_loop, lines_file, predictor

    path = str(folder / "film.mp4")
    write_film(path, args.frames, args.height, args.width)
    source = film_source.Source("film.mp4", path, False)
    detect = predictor.Predictor(random_detector.export(folder / "exported"))
    first = next(film_reader.FilmReader(source).frames())
    prepared = detect.prepare(reading.UprightImage(first.pixels, None, False))
    num_looked_at = -(-args.frames // args.every_nth)

    def network() -> None:
        for _ in range(num_looked_at):
            detect.call([prepared])

    def loop(stem: str | None) -> None:
        run = frame_loop.FrameLoop(detect, stem, 0.0, args.every_nth, 1)
        reader = film_reader.FilmReader(source, copy=stem is not None)
        progress = ProgressBar("film", args.frames, "frames", stream=io.StringIO())
        with lines_file.LinesFile(str(folder / "detections.jsonl")) as lines:
            run.process(reader, None, lines, progress, newest_only=False)
        assert (run.num_frames, run.num_looked_at) == (args.frames, num_looked_at)
        assert reader.num_damaged == 0

    contestants = {
        "network": network,
        "nodraw": lambda: loop(None),
        "draw": lambda: loop(str(folder / "drawn.mp4")),
    }
    taken = timing.in_turn(contestants, args.rounds)
    seconds = {name: [s / args.frames for s in runs.seconds] for name, runs in taken.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "benchmark": "film",
        "args": {name: value for name, value in vars(args).items() if name != "folder"},
        "canvas": list(prepared.canvas_hw or ()),
        "seconds": {
            name: timing.Runs(values, taken[name].elsewhere).summary()
            for name, values in seconds.items()
        },
        "frames_per_s": {name: round(1 / value, 3) for name, value in medians.items()},
        "ratio": {n: round(medians[n] / medians["network"], 3) for n in ("nodraw", "draw")},
        "peak_mib": timing.peak_memory_mib(),
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
    }


def main() -> None:
    """Measure in a folder that is removed, or kept if it is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--every_nth", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="keeps the SavedModel for another run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        timing.print_line(**measure(pathlib.Path(args.folder or temporary), args))


if __name__ == "__main__":
    main()
