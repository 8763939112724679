"""Find objects with a .tflite or .onnx file: NumPy, Pillow and the file's runtime are all it takes.

    python detect.py model.tflite photo.jpg [--threads=2] [--score_threshold=0.5] [--output=out.png]

`python -m mrcnn_tf.export --format=litert` writes this file, as `detect.py`, beside the network.
Copy both to the device; nothing else of the project is needed. The runtime is `ai-edge-litert` (or
`tflite-runtime`) for .tflite and `onnxruntime` for .onnx. In Python:

    network = detect.load("model.tflite")
    for found in detect.find(network, detect.read("photo.jpg")):
        print(found.category, found.score, found.box, found.mask.shape)

What the file wants to know of its picture, its categories for one, stands in the file itself: a
.tflite ends with a ZIP archive that holds `description.json`, as TensorFlow Lite's metadata do; an
.onnx has it as the metadata property `description`.

Shape letters: `H W` input of the network, `h w` picture, `D` detections at most, `M` mask side.
"""

import argparse
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

DESCRIPTION = "description.json"  # in a .tflite's archive
DESCRIPTION_KEY = "description"  # of an .onnx's metadata
MASK_THRESHOLD = 0.5  # probability from which a pixel belongs to the object

Outputs = dict[str, np.ndarray]


class Network(NamedTuple):
    """A file, ready to run.

    Attributes:
      run: takes uint8 [1, H, W, 3] RGB, the picture in its upper left corner, and int32 [(height,
        width)] of the picture there. Returns `boxes` float32 [D, (y1, x1, y2, x2)] in pixels of the
        input, best first; `classes` int32 [D], counted from 1; `scores` float32 [D]; `count` int32
        [], how many rows are detections, the others being zero; of networks with masks, `masks`
        float32 [D, M, M], probabilities inside of the box; and, of those that score their masks,
        `mask_scores` float32 [D].
      input_hw: (H, W).
      description: what else the file says of itself: `categories`, a list of {"class", "id",
        "name"}; `resize` and `mask_convention`, see `fit` and `paste`; `quantize`; and, if a report
        was made, `suggested_score_threshold`.
    """

    run: Callable[[np.ndarray, np.ndarray], Outputs]
    input_hw: tuple[int, int]
    description: dict[str, Any]


class Found(NamedTuple):
    """An object in the frame of the picture.

    Attributes:
      box: float64 [(y1, x1, y2, x2)], pixels of the picture; pixel i covers [i, i + 1).
      score: in [0, 1].
      category_id: the data set's own id.
      category: its name.
      mask: bool [height, width], a part of the picture, outside of which the mask is empty; None
        for a network without masks.
      top: row of the picture where `mask` begins.
      left: column of the picture where `mask` begins.
      mask_score: how good the mask is, in [0, 1], by which masks are ranked; None for a network
        that does not say so.
    """

    box: np.ndarray
    score: float
    category_id: int
    category: str
    mask: np.ndarray | None
    top: int
    left: int
    mask_score: float | None = None


def load(path: str, threads: int | None = None) -> Network:
    """Load a file into its runtime.

    Args:
      path: ends with .tflite or .onnx.
      threads: to compute with; None leaves it to the runtime.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the runtime is not installed.
      ValueError: the file is damaged, or not of `mrcnn_tf.export`.
    """
    with open(path, "rb"):  # the runtimes' own errors do not say that a file is absent
        pass
    if path.lower().endswith(".onnx"):
        run, text = _load_onnx(path, threads)
    elif path.lower().endswith(".tflite"):
        run, text = _load_litert(path, threads)
    else:
        raise ValueError(f"{path}: neither .tflite nor .onnx")
    try:
        description = json.loads(text)
        height, width = description["input_size"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not written by mrcnn_tf.export") from error
    return Network(run, (height, width), description)


def read(path: str) -> np.ndarray:
    """Return a picture, upright as its EXIF orientation says: uint8 [h, w, 3], RGB.

    Raises:
      OSError: there is no such file.
      ValueError: it is no picture, or a damaged one.
    """
    with open(path, "rb") as file:
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # 16 bits; Pillow would cut off at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
        except UnidentifiedImageError as error:  # its text names a buffer in memory
            raise ValueError(f"{path}: no image, or of a kind that Pillow does not know") from error
        except Exception as error:  # Pillow raises almost anything on broken files
            raise ValueError(f"{path}: {error}") from error


def find(network: Network, pixels: np.ndarray) -> list[Found]:
    """Find objects in a picture.

    Args:
      network: what `load` returned.
      pixels: uint8 [h, w, 3], RGB.

    Returns:
      What was found, the best first.
    """
    image, size_hw = fit(pixels, network.input_hw, network.description["resize"])
    return to_picture(network.run(image, size_hw), size_hw, pixels.shape[:2], network.description)


def fit(
    pixels: np.ndarray, input_hw: tuple[int, int], resize: str
) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture as large as the network's input holds, and put it into the upper left corner.

    Args:
      pixels: uint8 [h, w, 3], RGB.
      input_hw: (H, W).
      resize: "detectron2": bilinear, antialiased where it shrinks; "torchvision": without that.

    Returns:
      uint8 [1, H, W, 3], zero around the picture, and int32 [(height, width)] of the picture there.
    """
    scale = min(input_hw[0] / pixels.shape[0], input_hw[1] / pixels.shape[1])
    height, width = (
        min(max(math.floor(side * scale + 0.5), 1), limit)
        for side, limit in zip(pixels.shape[:2], input_hw, strict=True)
    )
    if resize == "torchvision":
        resized = _bilinear(pixels, height, width)
    else:
        filtered = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        resized = np.asarray(filtered)
    image = np.zeros([1, *input_hw, 3], np.uint8)
    image[0, :height, :width] = resized
    return image, np.array([height, width], np.int32)


def to_picture(
    outputs: Outputs,
    size_hw: np.ndarray,
    picture_hw: tuple[int, ...],
    description: dict[str, Any],
) -> list[Found]:
    """Bring what a network answered into the frame of the picture, and paste its masks.

    Args:
      outputs: of `Network.run`.
      size_hw: what `fit` returned.
      picture_hw: (h, w).
      description: of the network.
    """
    scale_yx = np.asarray(picture_hw, np.float64) / size_hw
    categories = {row["class"]: (row["id"], row["name"]) for row in description["categories"]}
    found = []
    for row in range(int(outputs["count"])):
        box = np.asarray(outputs["boxes"][row], np.float64) * np.tile(scale_yx, 2)
        mask, top, left = None, 0, 0
        if "masks" in outputs:
            probs, top, left = paste(
                outputs["masks"][row], box, picture_hw, description["mask_convention"]
            )
            mask = probs >= MASK_THRESHOLD
        category_id, category = categories[int(outputs["classes"][row])]
        score = float(outputs["scores"][row])
        mask_score = float(outputs["mask_scores"][row]) if "mask_scores" in outputs else None
        found.append(Found(box, score, category_id, category, mask, top, left, mask_score))
    return found


def paste(
    mask: np.ndarray, box: np.ndarray, picture_hw: tuple[int, ...], convention: str
) -> tuple[np.ndarray, int, int]:
    """Resize a mask into its box.

    Args:
      mask: float [M, M], probabilities.
      box: float [(y1, x1, y2, x2)], pixels of the picture.
      picture_hw: (h, w).
      convention: "pixel_centres" (as Detectron2) or "torchvision".

    Returns:
      float32 [height, width], probabilities of the part of the picture that the box touches, and
      the row and the column where it begins.
    """
    weights = {"pixel_centres": _weights_at_centres, "torchvision": _weights_of_torchvision}
    axis = weights[convention]
    y1, x1, y2, x2 = np.asarray(box, np.float32)
    rows, top = axis(y1, y2, picture_hw[0], mask.shape[0])
    cols, left = axis(x1, x2, picture_hw[1], mask.shape[1])
    return rows @ np.asarray(mask, np.float32) @ cols.T, top, left


def draw(pixels: np.ndarray, found: list[Found]) -> np.ndarray:
    """Colour the masks, or frame the boxes of a network without: uint8 [h, w, 3], a new one."""
    drawn = pixels.copy()
    for number, one in reversed(list(enumerate(found))):
        color = np.array(_COLORS[number % len(_COLORS)], np.float32)
        if one.mask is not None:
            height, width = one.mask.shape
            part = drawn[one.top : one.top + height, one.left : one.left + width]
            part[one.mask] = (0.5 * part[one.mask] + 0.5 * color).astype(np.uint8)
        else:
            last = np.array(drawn.shape[:2]) - 1
            y1, x1 = np.clip(np.round(one.box[:2]), 0, last).astype(int)
            y2, x2 = np.clip(np.round(one.box[2:]) - 1, [y1, x1], last).astype(int)
            drawn[y1 : y2 + 1, [x1, x2]] = color
            drawn[[y1, y2], x1 : x2 + 1] = color
    return drawn


_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0))


def _load_litert(path: str, threads: int | None) -> tuple[Callable, str]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(f"{path} needs a runtime: pip install ai-edge-litert") from error
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(DESCRIPTION).decode("utf-8")
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: damaged, or not written by mrcnn_tf.export") from error
    try:
        runner = Interpreter(model_path=path, num_threads=threads).get_signature_runner()
    except Exception as error:  # an operation that an older runtime does not know, or damage
        raise ValueError(f"{path}: {error}") from error

    def run(image: np.ndarray, image_size: np.ndarray) -> Outputs:
        return runner(image=image, image_size=image_size)

    return run, text


def _load_onnx(path: str, threads: int | None) -> tuple[Callable, str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path} needs its runtime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # a class of its own for each kind of damage
        raise ValueError(f"{path}: {error}") from error
    properties = session.get_modelmeta().custom_metadata_map
    if DESCRIPTION_KEY not in properties:
        raise ValueError(f"{path}: not written by mrcnn_tf.export")
    names = [output.name for output in session.get_outputs()]

    def run(image: np.ndarray, image_size: np.ndarray) -> Outputs:
        answers = session.run(names, {"image": image, "image_size": image_size})
        return dict(zip(names, answers, strict=True))

    return run, properties[DESCRIPTION_KEY]


def _bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize without antialiasing, pixel centres at i + 0.5: uint8 [h, w, 3] -> [height, width]."""

    def neighbours(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
        low = np.floor(place)
        pair = np.clip(np.stack([low, low + 1]), 0, size - 1).astype(np.int64)
        return pair[0], pair[1], (place - low).astype(np.float32)

    top, bottom, down = neighbours(pixels.shape[0], height)
    left, right, across = neighbours(pixels.shape[1], width)
    across = across[:, np.newaxis]

    def in_rows(rows: np.ndarray) -> np.ndarray:
        lines = pixels[rows]
        return lines[:, left] * (1 - across) + lines[:, right] * across

    down = down[:, np.newaxis, np.newaxis]
    resized = in_rows(top) * (1 - down) + in_rows(bottom) * down
    return np.floor(resized + np.float32(0.5)).astype(np.uint8)


def _weights_at_centres(
    start: np.float32, end: np.float32, size: int, cells: int
) -> tuple[np.ndarray, int]:
    """Return how much each pixel along an axis sees of each cell, [n, M], and the first pixel."""
    if not (np.isfinite(start) and np.isfinite(end) and end > start):
        return np.zeros([0, cells], np.float32), 0
    first = int(np.clip(np.floor(start) - 1, 0, size))
    stop = max(int(np.clip(np.ceil(end) + 1, 0, size)), first)
    centre = np.arange(first, stop, dtype=np.float32) + np.float32(0.5)
    place = (centre - start) / (end - start) * cells - np.float32(0.5)
    return _hats(place, np.arange(cells)), first


def _weights_of_torchvision(
    start: np.float32, end: np.float32, size: int, cells: int
) -> tuple[np.ndarray, int]:
    """Return the same as torchvision has it: a frame of zeros, the box in whole pixels."""
    if not (np.isfinite(start) and np.isfinite(end)):
        return np.zeros([0, cells], np.float32), 0
    half = (end - start) * np.float32(0.5) * np.float32((cells + 2) / cells)
    centre = (end + start) * np.float32(0.5)
    low, high = int(centre - half), int(centre + half)
    first = max(low, 0)
    stop = max(min(high + 1, size), first)
    scale = np.float32((cells + 2) / max(high - low + 1, 1))
    pixel = np.arange(first - low, stop - low, dtype=np.float32)
    place = np.maximum((pixel + np.float32(0.5)) * scale - np.float32(0.5), 0)
    return _hats(place, np.arange(1, cells + 1)), first


def _hats(place: np.ndarray, cells: np.ndarray) -> np.ndarray:
    distance = np.abs(place[:, np.newaxis] - cells.astype(np.float32))
    return np.maximum(1 - distance, 0).astype(np.float32)


def _lines(found: list[Found]) -> Iterator[str]:
    for one in found:
        row = {"category": one.category, "category_id": one.category_id}
        row["score"] = round(one.score, 4)
        row["box_yxyx"] = [round(float(side), 1) for side in one.box]
        if one.mask is not None:
            row["mask_pixels"] = int(one.mask.sum())
        if one.mask_score is not None:
            row["mask_score"] = round(one.mask_score, 4)
        yield json.dumps(row, ensure_ascii=False)


def main() -> None:
    """Find objects in one picture: a line of JSON for each, and a drawing on request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help=".tflite or .onnx")
    parser.add_argument("picture")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--score_threshold", type=float)
    parser.add_argument("--output", help="picture to draw into")
    given = parser.parse_args()
    try:
        network = load(given.model, given.threads)
        pixels = read(given.picture)
        threshold = given.score_threshold
        if threshold is None:
            threshold = network.description.get("suggested_score_threshold", 0.5)
        found = [one for one in find(network, pixels) if one.score >= threshold]
        for line in _lines(found):
            print(line)
        if given.output:
            Image.fromarray(draw(pixels, found)).save(given.output)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
