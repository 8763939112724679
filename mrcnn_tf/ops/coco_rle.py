"""Masks that are zero outside a crop, as COCO's compressed RLE: many at once, no full image built.

COCO counts equal pixels down the columns of the image, alternately outside and inside, beginning
outside, and writes the counts as text (`compress`). All crops lie one after the other in one row of
pixels, so NumPy finds the borders of all of them, and writes all their text, in a few calls; a mask
costs its slice of these. NumPy only.
"""

from collections.abc import Sequence

import numpy as np


def crop_to_rle(crop: np.ndarray, top: int, left: int, height: int, width: int) -> dict:
    """Encode one crop; see `crops_to_rles`."""
    return crops_to_rles([crop], np.array([top]), np.array([left]), height, width)[0]


def crops_to_rles(
    crops: Sequence[np.ndarray], tops: np.ndarray, lefts: np.ndarray, height: int, width: int
) -> list[dict]:
    """Encode masks that are zero outside their crops.

    Args:
      crops: bool [h, w] each, of any size, 0 included.
      tops: int [crops], row of the image where each crop begins.
      lefts: int [crops], column of the image where each crop begins.
      height: of the image, pixels.
      width: of the image, pixels.

    Returns:
      {"size": [height, width], "counts": bytes} each, as `pycocotools.mask.encode` of the full
      mask.
    """
    sizes = np.array([crop.shape for crop in crops], np.int64).reshape(-1, 2)
    # One empty row on top of each crop closes the runs of the column before; one more pixel at the
    # very end closes the last.
    lengths = sizes[:, 1] * (sizes[:, 0] + 1)
    starts = np.cumsum(lengths) - lengths
    pixels = np.zeros(lengths.sum() + 1, bool)
    for crop, start, length in zip(crops, starts.tolist(), lengths.tolist(), strict=True):
        h, w = crop.shape
        pixels[start : start + length].reshape(w, h + 1)[:, 1:] = crop.T
    change = np.flatnonzero(pixels[1:] != pixels[:-1])  # run starts and ends alternate
    num_bounds = np.diff(np.searchsorted(change, starts), append=len(change))  # per crop
    crop_of = np.repeat(np.arange(len(crops)), num_bounds)
    column, row = np.divmod(change - starts[crop_of], sizes[crop_of, 0] + 1)
    # In the column-major full image.
    bounds = (lefts[crop_of] + column) * height + tops[crop_of] + row
    # A run that reaches the bottom of the image goes on at the top of the next column.
    joined = (bounds[1:-1:2] == bounds[2::2]) & (crop_of[1:-1:2] == crop_of[2::2])
    if joined.any():
        first = np.flatnonzero(joined) * 2 + 1
        gone = np.concatenate([first, first + 1])
        bounds, crop_of = np.delete(bounds, gone), np.delete(crop_of, gone)
        num_bounds = np.bincount(crop_of, minlength=len(crops))
    counts, num_counts = _counts(bounds, num_bounds, height * width)
    size = [height, width]  # one list for all: it is never changed, and results are many
    return [{"size": size, "counts": text} for text in compress(counts, num_counts)]


def _counts(bounds: np.ndarray, num_bounds: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn where runs start and end into their lengths.

    Args:
      bounds: int [sum of num_bounds], ascending within each mask.
      num_bounds: int [masks], even.
      end: pixels of the image.

    Returns:
      counts: int64 [sum of num_counts], those of each mask sum to `end`.
      num_counts: int [masks]. The last run is left out if it is empty.
    """
    ends = np.cumsum(num_bounds + 1)  # each mask's bounds, and the end of the image
    edges = np.empty(len(bounds) + len(num_bounds), np.int64)
    is_last = np.zeros(len(edges), bool)
    is_last[ends - 1] = True
    edges[is_last] = end
    edges[~is_last] = bounds
    counts = np.diff(edges, prepend=0)
    firsts = ends - num_bounds - 1
    counts[firsts] = edges[firsts]
    is_used = ~is_last | (counts > 0)
    is_used[firsts] = True
    return counts[is_used], num_bounds + is_used[ends - 1]


def compress(counts: np.ndarray, num_counts: np.ndarray) -> list[bytes]:
    """Write run lengths as COCO's text.

    From the fourth count of a mask on, its difference to the last but one is written. A number is a
    string of characters of 48 + 6 bits: 5 bits of value, lowest first, and one that says that more
    follow; the last one's highest value bit is the sign. `column_runs_from_string` in `data/rle.py`
    is the way back.

    Args:
      counts: int64 [sum of num_counts], run lengths below 2**34, mask after mask.
      num_counts: int [masks].

    Returns:
      The text of each mask.

    Source: `rleToString` of pycocotools' maskApi.c; here for all numbers at once.
    """
    ends = np.cumsum(num_counts)
    place = np.arange(len(counts)) - np.repeat(ends - num_counts, num_counts)
    values = counts.copy()
    values[2:] -= np.where(place[2:] > 2, counts[:-2], 0)
    # k characters hold -16 * 32**(k - 1) up to 16 * 32**(k - 1), exclusive.
    beyond = np.where(values < 0, ~values, values)
    lengths = np.ones(len(values), np.int64)
    for limit in (2**4, 2**9, 2**14, 2**19, 2**24, 2**29, 2**34):
        longer = beyond >= limit
        if not longer.any():
            break
        lengths += longer
    stops = np.cumsum(lengths)
    starts = stops - lengths
    text = np.empty(stops[-1] if len(stops) else 0, np.uint8)
    for k in range(lengths.max(initial=0)):
        here = np.flatnonzero(lengths > k)
        more = (lengths[here] > k + 1) << 5
        text[starts[here] + k] = ((values[here] >> 5 * k) & 31) + more + 48
    written = text.tobytes()
    breaks = [0, *stops[ends - 1].tolist()]
    return [written[a:b] for a, b in zip(breaks, breaks[1:], strict=False)]
