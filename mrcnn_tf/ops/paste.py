"""Paste a predicted M x M mask into its box, and encode it for COCO. NumPy only.

Shape letters: `M` mask side, `h w` the crop of the image that the box touches.

Only the crop is computed, never a full image: 100 full masks of a photo are 100 MB, their boxes
a tenth of it. Bilinear resizing is a matrix per axis, so a crop is `rows @ mask @ cols.T`.
"""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask


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


def paste_mask(
    mask_probs: np.ndarray, box: np.ndarray, height: int, width: int, convention: str
) -> PastedMask:
    """Resize a mask into its box, on the pixels of the image.

    "pixel_centres" (Detectron2) asks for each pixel where its centre lies in the box, which may end
    anywhere between pixels, and interpolates the mask there. "torchvision" (and Detectron before
    it) frames the mask with zeros, enlarges the box alike, truncates it to whole pixels, and
    resizes the mask to those; results are up to a pixel off and cost about 0.5 AP.

    Args:
      mask_probs: float [M, M], probabilities.
      box: float [(y1, x1, y2, x2)], pixels of the image; any part may lie outside of it.
      height: of the image, pixels.
      width: of the image, pixels.
      convention: "pixel_centres" or "torchvision".

    Returns:
      The `PastedMask`.

    Raises:
      ValueError: unknown convention.

    Source: Detectron2 `paste_masks_in_image`; torchvision `paste_masks_in_image`.
    """
    if convention not in _AXIS_WEIGHTS:
        raise ValueError(f"unknown convention {convention!r}; known: {sorted(_AXIS_WEIGHTS)}")
    axis_weights = _AXIS_WEIGHTS[convention]
    mask_probs = np.asarray(mask_probs, np.float32)
    y1, x1, y2, x2 = box = np.asarray(box, np.float32)
    if not np.isfinite(box).all():
        return PastedMask(np.zeros((0, 0), np.float32), 0, 0)
    rows, top = axis_weights(y1, y2, height, mask_probs.shape[0])  # [h, M]
    cols, left = axis_weights(x1, x2, width, mask_probs.shape[1])  # [w, M]
    return PastedMask(rows @ mask_probs @ cols.T, top, left)


def paste_to_rle(
    mask_probs: np.ndarray,
    box: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.5,
    convention: str = "pixel_centres",
) -> dict:
    """Paste a mask, threshold it (`>= threshold`) and return COCO's compressed RLE.

    Args:
      mask_probs: float [M, M], probabilities.
      box: float [(y1, x1, y2, x2)], pixels of the image.
      height: of the image, pixels.
      width: of the image, pixels.
      threshold: probability from which a pixel belongs to the object, greater than 0.
      convention: "pixel_centres" or "torchvision", see `paste_mask`.

    Returns:
      {"size": [height, width], "counts": bytes}, as `pycocotools.mask.encode` of the full mask.
    """
    pasted = paste_mask(mask_probs, box, height, width, convention)
    return crop_to_rle(pasted.probs >= threshold, pasted.top, pasted.left, height, width)


def crop_to_rle(crop: np.ndarray, top: int, left: int, height: int, width: int) -> dict:
    """Encode a mask that is zero outside a crop, without building the full mask.

    Args:
      crop: bool [h, w].
      top: row of the image where the crop begins.
      left: column of the image where the crop begins.
      height: of the image, pixels.
      width: of the image, pixels.

    Returns:
      {"size": [height, width], "counts": bytes}, as `pycocotools.mask.encode` of the full mask.
    """
    h, w = crop.shape
    # COCO counts down the columns. One empty row on top of the crop closes the runs of the column
    # before; one more at the very end closes the last.
    columns = np.zeros(w * (h + 1) + 1, bool)
    columns[:-1].reshape(w, h + 1)[:, 1:] = crop.T
    change = np.flatnonzero(columns[1:] != columns[:-1])  # run starts and ends alternate
    column, row = np.divmod(change, h + 1)
    position = (left + column) * height + top + row  # in the column-major full image
    if h == height:  # a run that reaches the bottom goes on at the top of the next column
        joined = np.flatnonzero(position[1:-1:2] == position[2::2]) * 2 + 1
        position = np.delete(position, np.concatenate([joined, joined + 1]))
    counts = np.diff(position, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    uncompressed = {"size": [height, width], "counts": counts.tolist()}
    return coco_mask.frPyObjects(uncompressed, height, width)


def _pixel_centre_weights(start, end, size: int, mask_size: int) -> tuple[np.ndarray, int]:
    """Bilinear weights [n, M] of the image's pixels start..end along one axis, and the first one.

    Pixels around the box within one of its edges are computed too; where their centres fall at most
    half a mask cell outside, the mask fades to zero (below one half of its border cell).
    """
    empty = np.zeros((0, mask_size), np.float32), 0
    if end <= start:
        return empty
    first = int(max(np.floor(start) - 1, 0))
    stop = int(min(np.ceil(end) + 1, size))
    if stop <= first:
        return empty
    centre = np.arange(first, stop, dtype=np.float32) + np.float32(0.5)
    position = (centre - start) / (end - start) * mask_size - np.float32(0.5)
    # The hat function is the bilinear weight, and beyond the outermost cells mixes in zeros.
    distance = np.abs(position[:, None] - np.arange(mask_size, dtype=np.float32))
    return np.maximum(1 - distance, 0, dtype=np.float32), first


def _torchvision_weights(start, end, size: int, mask_size: int) -> tuple[np.ndarray, int]:
    """Weights [n, M] of torchvision's pasting along one axis, and the first pixel."""
    half = np.float32((end - start) * np.float32(0.5))
    half *= np.float32((mask_size + 2) / mask_size)  # room for the frame of zeros
    centre = np.float32((end + start) * np.float32(0.5))
    start, end = int(centre - half), int(centre + half)  # towards zero, as torchvision does
    count = max(end - start + 1, 1)
    first, stop = max(start, 0), min(end + 1, size)
    if stop <= first:
        return np.zeros((0, mask_size), np.float32), 0
    scale = np.float32((mask_size + 2) / count)
    pixel = np.arange(first - start, stop - start, dtype=np.float32)
    position = np.maximum((pixel + np.float32(0.5)) * scale - np.float32(0.5), 0)
    # The frame is cells 0 and M + 1 of the padded mask: zeros, so their weights are left out.
    # At the far end the padded mask is repeated: zeros again.
    distance = np.abs(position[:, None] - np.arange(1, mask_size + 1, dtype=np.float32))
    return np.maximum(1 - distance, 0, dtype=np.float32), first


_AXIS_WEIGHTS = {
    "pixel_centres": _pixel_centre_weights,
    "torchvision": _torchvision_weights,
}
