"""Detect objects in images: a SavedModel and images in, detections.json and drawings out.

    python -m mrcnn_tf.predict --saved_model=DIR --input=FILE|FOLDER|GLOB --output_dir=DIR

`detections.json` is a list of COCO results, with run-length masks where the network makes masks;
`image_id` is the file's name relative to the input folder, and the category's name stands beside
its id. All detections are in it; only those above `--score_threshold` are drawn, into
`output_dir/drawn/`.

An image is turned upright first if its EXIF orientation says so, and the results refer to the
upright image. A file that cannot be read is named at the end, the others go on; the exit code
is then 1. Runs without tf_keras and without tf-models-official.
"""

import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from mrcnn_tf import command_line
from mrcnn_tf.images import drawing, files
from mrcnn_tf.serving import predictor

_SECONDS_BETWEEN_LINES = 5.0  # of progress, where the output is not a terminal
# Lines around the one that says what is wrong with an image.
_TENSORFLOW_BOILERPLATE = ("Graph execution error", "Detected at node", "<stack traces", "[[")


class ResultsFile:
    """A JSON list that grows row by row on the disk and gets its name when it is complete."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._incomplete = path.with_name(path.name + ".incomplete")
        self.num_rows = 0

    def __enter__(self) -> "ResultsFile":
        # File names need not be UTF-8: such bytes go out as they came in.
        self._file = open(self._incomplete, "w", encoding="utf-8", errors="surrogateescape")
        self._file.write("[")
        return self

    def add(self, row: dict) -> None:
        """Append one row."""
        self._file.write(",\n" if self.num_rows else "\n")
        self._file.write(json.dumps(row, ensure_ascii=False))
        self.num_rows += 1

    def __exit__(self, error_type: type | None, *unused: object) -> None:
        self._file.write("\n]\n")
        self._file.close()
        if error_type is None:
            self._incomplete.replace(self._path)


class Progress:
    """Done, rate and time to go: one line that is rewritten, or a line every few seconds."""

    def __init__(self, total: int):
        self._total = total
        self._done = 0
        self._timed = 0  # images behind the first call, which is not typical
        self._start = self._shown = 0.0

    def step(self, count: int) -> None:
        """Note that `count` more images are done."""
        now = time.monotonic()
        if self._done:
            self._timed += count
        else:
            self._start = now
        self._done += count
        last = self._done == self._total
        if not sys.stdout.isatty() and not last and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        text = f"{self._done}/{self._total} images"
        if self._timed:
            rate = self._timed / max(now - self._start, 1e-9)
            text += f" | {rate:.2f}/s | {(self._total - self._done) / rate:.0f} s to go"
        rewrite = sys.stdout.isatty()
        print(f"\r{text:<60}" if rewrite else text, end="" if rewrite and not last else "\n")
        sys.stdout.flush()


def drawing_path(drawn_dir: pathlib.Path, name: str) -> pathlib.Path:
    """Return where an image's drawing goes: its own name, with .png behind unless JPEG or PNG."""
    kept = name.lower().endswith((".jpg", ".jpeg", ".png"))
    return drawn_dir / (name if kept else name + ".png")


def draw(
    image: files.ImageFile,
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


class Run:
    """One run over a list of images.

    Attributes:
      failures: what went wrong, by the image's name.
      num_turned: images whose EXIF orientation was applied.
    """

    def __init__(self, detect: predictor.Predictor, drawn_dir: pathlib.Path, threshold: float):
        self._detect = detect
        self._drawn_dir = drawn_dir
        self._threshold = threshold
        self.failures: dict[str, str] = {}
        self.num_turned = 0
        self._called = False

    def process(self, files: Sequence[tuple[str, pathlib.Path]], results: ResultsFile) -> None:
        """Read, detect, write and draw one batch."""
        images = [image for name, path in files if (image := self._read(name, path))]
        for image, detections in self._detect_each(images):
            for detection in detections:
                results.add(detection.to_coco(image.name))
            path = drawing_path(self._drawn_dir, image.name)
            try:
                drawing = Image.fromarray(draw(image, detections, self._threshold))
                path.parent.mkdir(parents=True, exist_ok=True)
                drawing.save(path, quality=95)  # PNG has no quality and ignores it
            except (OSError, ValueError, MemoryError) as error:
                self._fail(image.name, error)

    def _read(self, name: str, path: pathlib.Path) -> files.ImageFile | None:
        try:
            image = files.read_image(name, path)
        except Exception as error:  # Pillow raises almost anything on broken files
            self._fail(name, error)
            return None
        self.num_turned += image.turned
        return image

    def _detect_each(
        self, images: Sequence[files.ImageFile]
    ) -> Iterator[tuple[files.ImageFile, list[predictor.Detection]]]:
        """Yield each image with its detections; one that fails does not take its batch along."""
        if not images:
            return
        try:
            batch = self._call(images)
        except (tf.errors.OpError, ValueError, MemoryError) as error:
            if len(images) == 1:
                self._fail(images[0].name, error)
                return
            for image in images:
                yield from self._detect_each([image])
            return
        yield from zip(images, batch, strict=True)

    def _call(self, images: Sequence[files.ImageFile]) -> list[list[predictor.Detection]]:
        """Call the network; say why nothing moves while TensorFlow prepares it."""
        start = time.monotonic()
        if not self._called:
            print("first call: TensorFlow prepares the graph, which takes a while", flush=True)
        batch = self._detect([p.encoded for p in images], [p.pixels for p in images])
        if not self._called:
            print(f"first call took {time.monotonic() - start:.1f} s", flush=True)
            self._called = True
        return batch

    def _fail(self, name: str, error: Exception) -> None:
        self.failures[name] = reason(error)


def reason(error: Exception) -> str:
    """Return the line of an error's text that says what is wrong."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_TENSORFLOW_BOILERPLATE)]
    return telling[0][:200] if telling else type(error).__name__


def run(
    saved_model: str, pattern: str, output_dir: str, score_threshold: float, batch_size: int
) -> int:
    """Predict on everything that `pattern` names, see the module's text.

    Args:
      saved_model: folder that `python -m mrcnn_tf.export` wrote.
      pattern: file, folder or glob.
      output_dir: made if absent.
      score_threshold: of what is drawn.
      batch_size: images per call.

    Returns:
      The exit code: 0, or 1 if an image failed.

    Raises:
      FileNotFoundError: no image, or no SavedModel.
      ValueError: the SavedModel is not ours.
    """
    drawn_dir = pathlib.Path(output_dir) / "drawn"
    paths = files.find_images(pattern, drawn_dir)
    print(f"{len(paths)} image{'s' * (len(paths) != 1)}; loading {saved_model}", flush=True)
    this_run = Run(predictor.Predictor(saved_model), drawn_dir, score_threshold)
    drawn_dir.mkdir(parents=True, exist_ok=True)
    results_path = pathlib.Path(output_dir) / "detections.json"
    progress = Progress(len(paths))
    with ResultsFile(results_path) as results:
        for first in range(0, len(paths), batch_size):
            batch = paths[first : first + batch_size]
            this_run.process(batch, results)
            progress.step(len(batch))
    if this_run.num_turned:
        print(f"{this_run.num_turned} turned upright as their EXIF orientation says")
    print(f"{results.num_rows} detections: {results_path}")
    print(f"those with a score of {score_threshold} or more are drawn: {drawn_dir}")
    for name, why in this_run.failures.items():
        print(f"FAILED {name}: {why}")
    return 1 if this_run.failures else 0


def _define_flags() -> None:
    # In a function: importing this module must not claim flag names.
    flags.DEFINE_string("saved_model", None, "Folder written by mrcnn_tf.export.", required=True)
    flags.DEFINE_string("input", None, "Image, folder of images, or glob.", required=True)
    flags.DEFINE_string("output_dir", None, "Where detections.json and drawn/ go.", required=True)
    flags.DEFINE_float("score_threshold", 0.5, "Draw detections from this score on.", 0.0, 1.0)
    flags.DEFINE_integer("batch_size", 1, "Images per call of the network.", lower_bound=1)


def main(argv: Sequence[str]) -> int:
    """Run with the flags; a mistake of the user's is one line, not a traceback."""
    if len(argv) > 1:
        print(f"unexpected argument {argv[1]!r}: quote a glob, so that the shell keeps it")
        return 2
    values = flags.FLAGS
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names need not be printable
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run(
            values.saved_model,
            values.input,
            values.output_dir,
            values.score_threshold,
            values.batch_size,
        )
    except (FileNotFoundError, ValueError) as error:
        print(error)
        return 2


def run_main() -> None:
    """Run the command that was typed."""
    command_line.run(__doc__, _define_flags, main)


if __name__ == "__main__":
    run_main()
