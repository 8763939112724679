"""Paste predicted M x M masks into their boxes, and encode them for COCO. NumPy only.

Shape letters: `D` masks, `M` mask side, `h w` the crop of the image that a box touches.

Only crops are computed, never a full image: 100 full masks of a photo are 100 MB, their boxes
a tenth of it. Bilinear resizing is a matrix per axis, so a crop is `rows @ mask @ cols.T`; the
matrices of all masks are made in one go, one below the other.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mrcnn_tf.ops import coco_rle

# Pixels of crops that are encoded at a time: with half or twice as many it takes longer.
_CHUNK_PIXELS = 2**19

# Multiplications up to which OpenBLAS stays on the calling thread. Masks are pasted beside the
# network, and threads that wait for busy cores make a product ten times as slow.
_ONE_THREAD = 2**18


class PastedMask(NamedTuple):
    """Mask probabilities of the part of an image that a box touches; 0 elsewhere.

    Attributes:
      probs: float32 [h, w]; h or w is 0 if the box lies outside the image, has no area
        ("pixel_centres") or is not finite.
      top: row of the image that `probs[0]` belongs to.
      left: column of the image that `probs[:, 0]` belongs to.
    """

    probs: np.ndarray
    top: int
    left: int


def paste_masks(
    mask_probs: np.ndarray, boxes: np.ndarray, height: int, width: int, convention: str
) -> Iterator[PastedMask]:
    """Resize masks into their boxes, on the pixels of the image.

    "pixel_centres" (Detectron2) asks for each pixel where its centre lies in the box, which may end
    anywhere between pixels, and interpolates the mask there. "torchvision" (and Detectron before
    it) frames the mask with zeros, enlarges the box alike, truncates it to whole pixels, and
    resizes the mask to those; results are up to a pixel off and cost about 0.5 AP.

    Args:
      mask_probs: float [D, M, M], probabilities.
      boxes: float [D, (y1, x1, y2, x2)], pixels of the image; any part may lie outside of it.
      height: of the image, pixels.
      width: of the image, pixels.
      convention: "pixel_centres" or "torchvision".

    Returns:
      One `PastedMask` after the other.

    Raises:
      ValueError: unknown convention.

    Source: Detectron2 `paste_masks_in_image`; torchvision `paste_masks_in_image`.
    """
    if convention not in _AXIS_WEIGHTS:
        raise ValueError(f"unknown convention {convention!r}; known: {sorted(_AXIS_WEIGHTS)}")
    axis_weights = _AXIS_WEIGHTS[convention]
    mask_probs = np.asarray(mask_probs, np.float32)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    is_finite = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    y1, x1, y2, x2 = np.where(is_finite[:, np.newaxis], boxes, np.float32(0)).T
    rows = axis_weights(y1, y2, is_finite, height, mask_probs.shape[1])
    cols = axis_weights(x1, x2, is_finite, width, mask_probs.shape[2])
    return (
        PastedMask(_resize(mask, row_weights, col_weights), top, left)
        for mask, (row_weights, top), (col_weights, left) in zip(
            mask_probs, rows, cols, strict=True
        )
    )


def _resize(mask: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return `rows @ mask @ cols.T`: [M, M], [h, M], [w, M] -> [h, w].

    In memory it lies column by column, as COCO counts.
    """
    return _product(cols, _product(rows, mask).T).T


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return `a @ b`, computed some rows at a time."""
    product = np.empty([len(a), b.shape[1]], np.float32)
    step = max(_ONE_THREAD // max(b.size, 1), 1)
    for first in range(0, len(a), step):
        np.matmul(a[first : first + step], b, out=product[first : first + step])
    return product


def paste_mask(
    mask_probs: np.ndarray, box: np.ndarray, height: int, width: int, convention: str
) -> PastedMask:
    """Resize one mask, float [M, M], into its box; see `paste_masks`."""
    return next(
        paste_masks(np.asarray(mask_probs)[np.newaxis], np.asarray(box), height, width, convention)
    )


def paste_to_rles(
    mask_probs: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.5,
    convention: str = "pixel_centres",
) -> list[dict]:
    """Paste masks, threshold them (`>= threshold`) and return COCO's compressed RLEs.

    Args:
      mask_probs: float [D, M, M], probabilities.
      boxes: float [D, (y1, x1, y2, x2)], pixels of the image.
      height: of the image, pixels.
      width: of the image, pixels.
      threshold: probability from which a pixel belongs to the object, greater than 0.
      convention: "pixel_centres" or "torchvision", see `paste_masks`.

    Returns:
      {"size": [height, width], "counts": bytes} each, as `pycocotools.mask.encode` of the full
      mask.
    """
    rles: list[dict] = []
    crops: list[np.ndarray] = []
    corners: list[tuple[int, int]] = []
    num_pixels = 0

    def encode() -> None:
        tops, lefts = np.array(corners, np.int64).reshape(-1, 2).T
        rles.extend(coco_rle.crops_to_rles(crops, tops, lefts, height, width))

    for probs, top, left in paste_masks(mask_probs, boxes, height, width, convention):
        if num_pixels + probs.size > _CHUNK_PIXELS:
            encode()
            crops, corners, num_pixels = [], [], 0
        crops.append(probs >= threshold)
        corners.append((top, left))
        num_pixels += probs.size
    encode()
    return rles


def paste_to_rle(
    mask_probs: np.ndarray,
    box: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.5,
    convention: str = "pixel_centres",
) -> dict:
    """Paste one mask, float [M, M], and return COCO's compressed RLE; see `paste_to_rles`."""
    masks = np.asarray(mask_probs)[np.newaxis]
    return paste_to_rles(masks, np.asarray(box), height, width, threshold, convention)[0]


_Weights = Iterator[tuple[np.ndarray, int]]


def _pixel_centre_weights(
    start: np.ndarray, end: np.ndarray, used: np.ndarray, size: int, mask_size: int
) -> _Weights:
    """Bilinear weights of the image's pixels start..end along one axis.

    Pixels around the box within one of its edges are computed too; where their centres fall at most
    half a mask cell outside, the mask fades to zero (below one half of its border cell).

    Args:
      start: float32 [D], where the boxes begin along the axis.
      end: float32 [D], where they end.
      used: bool [D]; others get no pixels.
      size: of the image along the axis.
      mask_size: M.

    Returns:
      One after the other: weights float32 [n, M], and the first pixel.
    """
    first = np.clip(np.floor(start) - 1, 0, size).astype(np.int64)
    stop = np.clip(np.ceil(end) + 1, 0, size).astype(np.int64)
    counts = np.where(used & (end > start), np.maximum(stop - first, 0), 0)
    box = np.repeat(np.arange(len(counts)), counts)
    centre = _pixels(first, counts, box) + np.float32(0.5)
    extent = np.where(counts > 0, end - start, np.float32(1))
    position = (centre - start[box]) / extent[box] * mask_size - np.float32(0.5)
    return _split(_hats(position, np.arange(mask_size, dtype=np.float32)), counts, first)


def _torchvision_weights(
    start: np.ndarray, end: np.ndarray, used: np.ndarray, size: int, mask_size: int
) -> _Weights:
    """Weights of torchvision's pasting along one axis; see `_pixel_centre_weights`."""
    half = (end - start) * np.float32(0.5)
    half *= np.float32((mask_size + 2) / mask_size)  # room for the frame of zeros
    centre = (end + start) * np.float32(0.5)
    # Towards zero, as torchvision does.
    start, end = (centre - half).astype(np.int64), (centre + half).astype(np.int64)
    extent = np.maximum(end - start + 1, 1)
    first, stop = np.maximum(start, 0), np.minimum(end + 1, size)
    counts = np.where(used, np.maximum(stop - first, 0), 0)
    box = np.repeat(np.arange(len(counts)), counts)
    scale = ((mask_size + 2) / extent).astype(np.float32)
    pixel = _pixels(first - start, counts, box)
    position = np.maximum((pixel + np.float32(0.5)) * scale[box] - np.float32(0.5), 0)
    # The frame is cells 0 and M + 1 of the padded mask: zeros, so their weights are left out.
    # At the far end the padded mask is repeated: zeros again.
    cells = np.arange(1, mask_size + 1, dtype=np.float32)
    return _split(_hats(position, cells), counts, first)


def _pixels(first: np.ndarray, counts: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return first, first + 1, ... of each box, `counts` of them: float32 [sum of counts]."""
    before = np.cumsum(counts) - counts
    return (np.arange(len(box)) + (first - before)[box]).astype(np.float32)


def _hats(position: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return how much each position [n] sees of each cell [M]: [n, M].

    The hat function is the bilinear weight, and beyond the outermost cells mixes in zeros.
    """
    distance = position[:, np.newaxis] - cells
    np.abs(distance, out=distance)
    np.subtract(1, distance, out=distance)
    return np.maximum(distance, 0, out=distance)


def _split(weights: np.ndarray, counts: np.ndarray, first: np.ndarray) -> _Weights:
    """Return the rows of each box, and its first pixel."""
    stops = np.cumsum(counts).tolist()
    starts = [0, *stops]
    return (
        (weights[a:b], pixel if b > a else 0)
        for a, b, pixel in zip(starts, stops, first.tolist(), strict=False)
    )


_AXIS_WEIGHTS = {
    "pixel_centres": _pixel_centre_weights,
    "torchvision": _torchvision_weights,
}
