"""Large images, a tile at a time: cut into overlapping tiles, found in each, joined to one list.

    from mrcnn_tf.images import reading
    from mrcnn_tf.serving import predictor, tiles

    image = reading.read("field.png", large=True)
    find = predictor.Predictor("exported/photos")
    objects = tiles.detect(image.pixels, find, tiles.Tiling(1024, 0.2))

Beside the image, memory holds a batch of tiles, what the network needs for it, and the runs of all
masks, 12 bytes each, about one a column of an object. An object is seen whole where it is smaller
than the overlap; larger ones are put together, see `results/joining.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from mrcnn_tf.results import joining
from mrcnn_tf.results.column_runs import Rectangle
from mrcnn_tf.results.detection import Detection, ImageDetections

# uint8 [h, w, 3] images, all of one size -> what was found in each.
Detect = Callable[[Sequence[np.ndarray]], Sequence[Sequence[Detection]]]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
      side: of a tile, pixels; of an image that is shorter, all of it.
      overlap: of neighbours, as a fraction of the side.

    Raises:
      ValueError: tiles would not overlap by a pixel, or not move on.
    """

    side: int
    overlap: float

    def __post_init__(self) -> None:
        if not 1 <= self._shared < self.side:
            raise ValueError(
                f"tiles of {self.side} pixels with an overlap of {self.overlap}: neighbours have "
                "to share a pixel at least, and not all of them"
            )

    @property
    def _shared(self) -> int:
        return round(self.side * self.overlap)

    def windows(self, height: int, width: int) -> list[Rectangle]:
        """Return the tiles of an image, row by row.

        They have one size. The last ones of a row or a column end with the image, so they may
        overlap more.
        """
        tile_height, tile_width = min(self.side, height), min(self.side, width)
        return [
            Rectangle(y, x, y + tile_height, x + tile_width)
            for y in self._starts(height)
            for x in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        last = max(length - self.side, 0)
        return [*range(0, last, self.side - self._shared), last]


def detect(
    pixels: np.ndarray, detect_in: Detect, tiling: Tiling, batch_size: int = 1
) -> ImageDetections:
    """Find the objects of an image tile by tile.

    Args:
      pixels: uint8 [h, w, 3], RGB, upright.
      detect_in: finds objects in images: a `Predictor`, a `Detector`.
      tiling: how the image is cut.
      batch_size: tiles that are given to it at a time.

    Returns:
      The objects, best first, boxes and masks in pixels of the image.
    """
    height, width = pixels.shape[:2]
    windows = tiling.windows(height, width)
    pieces: list[joining.Piece] = []
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        tiles = [np.ascontiguousarray(pixels[w.y1 : w.y2, w.x1 : w.x2]) for w in batch]
        for k, found in enumerate(detect_in(tiles)):
            pieces += [joining.piece(first + k, batch[k], detection) for detection in found]
    return joining.join(pieces, windows, height, width)
