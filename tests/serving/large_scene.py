"""A picture of any size with known shapes, and a network that finds them by their colours.

Each shape has a colour of its own, which says which one it is; so what should come back is known to
the pixel. Shapes are painted on demand, a rectangle of the picture at a time.
"""

import zlib
from typing import NamedTuple

import numpy as np

from mrcnn_tf.ops import coco_rle
from mrcnn_tf.results.detection import Detection, ImageDetections
from mrcnn_tf.serving import predictor

CATEGORIES = {1: "thing", 5: "other"}


class Shape(NamedTuple):
    """A shape in a box (y1, x1, y2, x2): "rectangle", "disc", or "frame", a tenth thick."""

    kind: str
    box: tuple[int, int, int, int]
    category_id: int

    def covers(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Which pixels [h, 1] x [1, w] are its own: bool [h, w]."""
        y1, x1, y2, x2 = self.box
        inside = (y >= y1) & (y < y2) & (x >= x1) & (x < x2)
        if self.kind == "disc":
            down, across = (2 * y + 1 - y1 - y2) / (y2 - y1), (2 * x + 1 - x1 - x2) / (x2 - x1)
            inside &= down**2 + across**2 <= 1
        if self.kind == "frame":
            thick = max(min(y2 - y1, x2 - x1) // 10, 1)
            inner = (y >= y1 + thick) & (y < y2 - thick) & (x >= x1 + thick) & (x < x2 - thick)
            inside &= ~inner
        return inside


def scene(side: int, count: int) -> list[Shape]:
    """Shapes larger than any tile, two that touch all along, and `count` small ones."""
    part = side // 20
    shapes = [
        Shape("disc", (part, part, 9 * part, 9 * part), 1),
        Shape("frame", (10 * part, part, 19 * part, 9 * part), 1),
        Shape("rectangle", (2 * part, 10 * part, 3 * part, 19 * part), 1),
        Shape("rectangle", (3 * part, 10 * part, 4 * part, 19 * part), 1),  # below it
        Shape("rectangle", (0, 0, side, part // 4), 5),
    ]
    rng = np.random.default_rng(0)
    per_row = int(np.ceil(count**0.5))
    cell = side // (per_row + 1)  # a small one in its own cell, so that none cuts another
    for k in range(count):
        y, x = cell // 2 + cell * (k // per_row), cell // 2 + cell * (k % per_row)
        height, width = (int(n) for n in rng.integers(1, cell * 3 // 4, 2))
        kind = ("rectangle", "disc", "frame")[k % 3]
        shapes.append(Shape(kind, (y, x, y + height, x + width), (1, 5)[k % 2]))
    return shapes


def numbers_in(shapes: list[Shape], y1: int, x1: int, y2: int, x2: int) -> np.ndarray:
    """Which shape, from 1 on, each pixel of a rectangle shows: uint16 [y2 - y1, x2 - x1]."""
    numbers = np.zeros((y2 - y1, x2 - x1), np.uint16)
    for number, shape in enumerate(shapes, start=1):
        top, left = max(y1, shape.box[0]), max(x1, shape.box[1])
        bottom, right = min(y2, shape.box[2]), min(x2, shape.box[3])
        if bottom > top and right > left:
            y, x = np.arange(top, bottom)[:, np.newaxis], np.arange(left, right)
            part = numbers[top - y1 : bottom - y1, left - x1 : right - x1]
            part[shape.covers(y, x)] = number
    return numbers


def colours(shapes: list[Shape], numbers: np.ndarray) -> np.ndarray:
    """The picture: uint8 [h, w, 3]; red and green say which shape, blue of which category."""
    blue = np.array([0, *(shape.category_id for shape in shapes)], np.uint8)
    return np.stack([numbers & 255, numbers >> 8, blue[numbers]], axis=-1).astype(np.uint8)


def write_png(path, shapes: list[Shape], side: int, rows: int = 500) -> None:
    """Write the picture row by row: none of it is in memory as a whole."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4) + kind + content + check.to_bytes(4)

    packer = zlib.compressobj(1)
    with open(path, "wb") as file:
        header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header))
        for y in range(0, side, rows):
            numbers = numbers_in(shapes, y, 0, min(y + rows, side), side)
            lines = colours(shapes, numbers).reshape(len(numbers), -1)
            filtered = np.pad(lines, [(0, 0), (1, 0)])  # filter 0
            file.write(chunk(b"IDAT", packer.compress(filtered.tobytes())))
        file.write(chunk(b"IDAT", packer.flush()) + chunk(b"IEND", b""))


def score_of(number: int) -> float:
    return 1 - number / 2**16


def look(pixels: np.ndarray) -> ImageDetections:
    """Find all shapes of an image, exactly."""
    numbers = pixels[..., 0].astype(np.int64) | pixels[..., 1].astype(np.int64) << 8
    found = []
    for number in np.flatnonzero(np.bincount(numbers.ravel())):
        if number == 0:
            continue
        mask = numbers == number
        y, x = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.array([y[0], x[0], y[-1] + 1, x[-1] + 1], np.float64)
        category_id = int(pixels[y[0], x[0] :, 2][mask[y[0], x[0] :]][0])
        runs = coco_rle.crop_to_rle(mask, 0, 0, *mask.shape)
        found.append(Detection(box, score_of(number), category_id, CATEGORIES[category_id], runs))
    return ImageDetections(found)


class Seer:
    """Has the three steps of a `Predictor`, and sees everything."""

    category_names = CATEGORIES
    keypoints = None
    suggested_score_threshold = None

    def __init__(self):
        self.sizes = set()

    def prepare(self, image):
        self.sizes.add(image.pixels.shape)
        return predictor.Prepared(image.pixels.shape[:2], image.pixels)

    def call(self, batch):
        return {"pixels": [one.request for one in batch]}

    def read(self, answer, row):
        return look(answer["pixels"][row])


def assert_found(shapes: list[Shape], objects, side: int) -> None:
    """Check that all shapes have come back, each once, to the pixel."""
    assert len(objects) == len(shapes)
    for number, (shape, one) in enumerate(zip(shapes, objects, strict=True), start=1):
        assert one.score == score_of(number)
        assert one.category_id == shape.category_id
        assert one.mask["size"] == [side, side]
        y, x, pixels = one.mask_crop()
        bottom, right = y + pixels.shape[0], x + pixels.shape[1]
        numbers = numbers_in(shapes, y, x, bottom, right)
        np.testing.assert_array_equal(pixels, numbers == number)
        assert one.box.tolist() == [y, x, bottom, right]
        # None of it lies outside of what has come back.
        top, left, low, far = shape.box
        assert (numbers_in(shapes, top, left, low, far) == number).sum() == pixels.sum()
