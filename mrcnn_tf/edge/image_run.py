"""A .tflite or .onnx file over many image files, without TensorFlow.

What is written is what `serving/image_run.py` writes.
"""

import os
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mrcnn_tf.console.progress_bar import ProgressBar
from mrcnn_tf.edge import device
from mrcnn_tf.images import depth, drawing, finding, kinds, storage
from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results.detection import Detection
from mrcnn_tf.results.found import fitting
from mrcnn_tf.serving import other_forms, unread
from mrcnn_tf.serving.results_file import ResultsFile

DEFAULT_THRESHOLD = 0.5  # of what is drawn, where no report suggests another
# In the output folder.
DETECTIONS, DRAWN, FORMS, UNREAD = "detections.json", "drawn", "results", "unread.json"
_ORIENTATION = 0x0112  # EXIF's tag

kinds.register_decoders()


def read(path: str) -> np.ndarray:
    """Read an image file and turn it upright.

    Decoded by Pillow, which may differ from TensorFlow's decoder by a level here and there; more
    than 8 bits become 8 as everywhere (`images/depth.py`).

    Returns:
      uint8 [h, w, 3], RGB.

    Raises:
      OSError: the file cannot be read, or is broken.
      ValueError: its samples cannot become 8 bits.
    """
    with Image.open(path) as image:
        # Pillow turns TIFFs while it loads them.
        tag = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
        image.load()
        pixels = depth.to_8_bits(image)
    return _upright(pixels, tag if tag in range(1, 9) else 1)


def _upright(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Turn stored pixels as `images/orientation.py` says."""
    if tag >= 5:
        pixels = pixels.transpose(1, 0, 2)
    step = (tag - 1) % 4  # mirror nothing, x, both, y
    if step in (1, 2):
        pixels = pixels[:, ::-1]
    if step >= 2:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def detections_of(found: Sequence[device.Found], picture_hw: tuple[int, ...]) -> list[Detection]:
    """Return what a device found in a picture of that size as every other network's."""
    height, width = picture_hw
    return [
        Detection(
            one.box,
            one.score,
            one.category_id,
            one.category,
            None
            if one.mask is None
            else coco_rle.crop_to_rle(one.mask, one.top, one.left, height, width),
        )
        for one in found
    ]


def run(
    model: str,
    patterns: Sequence[str],
    output_dir: str,
    score_threshold: float | None,
    draw_images: bool = True,
    forms: Sequence[str] = (),
    threads: int | None = None,
) -> int:
    """Predict on everything that the patterns name, and print what happens.

    Args:
      model: file that `python -m mrcnn_tf.export --format=litert` or `onnx` wrote.
      patterns: files, folders or globs, see `finding.find_images`.
      output_dir: made if absent.
      score_threshold: of what is drawn; None for the one that the file suggests.
      draw_images: whether images with what was found are written.
      forms: other forms in which results are wanted, of `results.forms.NAMES`.
      threads: to compute with.

    Returns:
      The exit code: 0, or 1 if an image failed.

    Raises:
      FileNotFoundError: no image, or no such file.
      ValueError: the file is not ours, or two images have the same name.
      ImportError: the file's runtime is not installed.
    """
    drawn_dir, forms_dir = os.path.join(output_dir, DRAWN), os.path.join(output_dir, FORMS)
    results_path = os.path.join(output_dir, DETECTIONS)
    unread_path = os.path.join(output_dir, UNREAD)
    written = (drawn_dir, results_path, results_path + ".incomplete", forms_dir, unread_path)
    images, others = finding.find_images(patterns, written)
    print(f"{len(images)} image{'s' * (len(images) != 1)}; loading {model}", flush=True)
    network = device.load(model, threads)
    if score_threshold is None:
        suggested = network.description.get("suggested_score_threshold", DEFAULT_THRESHOLD)
        score_threshold = round(suggested, 3)
    in_forms = other_forms.OtherForms(forms, _category_names(network), forms_dir, score_threshold)
    in_forms.check(images)
    os.makedirs(drawn_dir if draw_images else output_dir, exist_ok=True)
    storage.remove(unread_path)  # of an earlier run
    progress = ProgressBar("predicting", len(images), "images", stream=sys.stdout)
    failures: dict[str, str] = {}
    try:
        with ResultsFile(results_path) as results, in_forms:
            for name, path in images:
                try:
                    pixels = read(path)
                    found = detections_of(device.find(network, pixels), pixels.shape[:2])
                    row_of_forms = in_forms.write(name, path, pixels, found)
                    if draw_images:
                        _draw(drawn_dir, name, pixels, found, score_threshold)
                except Exception as error:  # Pillow raises almost anything on broken files
                    failures[name] = " ".join(str(error).split())[:300] or type(error).__name__
                else:
                    for one in found:
                        results.add(one.to_coco(name))
                    in_forms.add(row_of_forms)
                progress.add(1)
    except KeyboardInterrupt:
        progress.close()
        print(f"what was found until then is in {results_path}.incomplete")
        raise
    progress.close()
    print(f"{results.num_rows} detections: {results_path}")
    if draw_images:
        print(f"those with a score of {score_threshold} or more are drawn: {drawn_dir}")
    if forms:
        print(f"those with a score of {score_threshold} or more as {', '.join(forms)}: {forms_dir}")
    unread.tell(unread.list_all(others, failures), unread_path)
    return 1 if failures else 0


def _category_names(network: device.Network) -> dict[int, str]:
    return {row["id"]: row["name"] for row in network.description["categories"]}


def _draw(
    drawn_dir: str, name: str, pixels: np.ndarray, found: Sequence[Detection], threshold: float
) -> None:
    """Draw what was found, and write it under the image's own name, .png unless it is a JPEG."""
    shown = [one for one in found if one.score >= threshold]
    drawn = drawing.draw_detections(
        pixels,
        np.array([one.box for one in shown], np.float32).reshape(-1, 4),
        masks=[one.mask for one in shown],
        names=[one.category for one in shown],
        scores=[one.score for one in shown],
    )
    is_named = name.lower().endswith((".jpg", ".jpeg", ".png"))
    folder, last = os.path.split(name if is_named else name + ".png")
    path = os.path.join(drawn_dir, folder, fitting(last, kept=len(".png")))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    kind = "PNG" if path.lower().endswith(".png") else "JPEG"
    Image.fromarray(drawn).save(path, kind, quality=95)
