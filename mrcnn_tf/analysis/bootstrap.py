"""How sure the scores are: intervals by drawing the images again and again.

The bootstrap (Efron 1979): of the data set's n images, n are drawn with replacement, and scored;
a thousand times. Between which numbers 95% of the scores lie says how much of a score is chance in
the choice of images. It does not say what another training would give.

Matching is done once; a set of drawn images only counts the matches of its images. (hotcoco
resamples too, but to compare two networks.)
"""

import numpy as np

from mrcnn_tf.analysis.average_precision import average_precision
from mrcnn_tf.analysis.matches import Matches

RESAMPLES, SEED = 1000, 0
_LEVEL = 95.0  # percent
_CHUNK = 4_000_000  # counts at once: 32 MB


def draw(num_images: int, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Return how often each image is in each drawn set: int [R, images], rows sum to `images`."""
    if not num_images:
        return np.zeros([resamples, 0], np.int64)
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples)


def average_precisions(matches: Matches, counts: np.ndarray, num_categories: int) -> np.ndarray:
    """Score every set of images.

    Args:
      matches: of all images.
      counts: int [R, images], from `draw`; a row of ones scores the images as they are.
      num_categories: K.

    Returns:
      float [R, IoU threshold, K]; NaN where a set has no object of a category.
    """
    num_thresholds = len(matches.is_right)
    aps = np.full([len(counts), num_thresholds, num_categories], np.nan)
    for k in range(num_categories):
        here = matches.category == k + 1
        images = matches.image[here]
        objects = counts[:, matches.object_image[matches.object_category == k + 1]].sum(axis=1)
        if not objects.any():
            continue
        step = max(1, _CHUNK // max(images.size, 1))
        for t in range(num_thresholds):
            kept = ~matches.is_ignored[t, here]
            is_right = matches.is_right[t, here][kept]
            for start in range(0, len(counts), step):
                part = slice(start, start + step)
                of_images = counts[part][:, images[kept]]
                aps[part, t, k] = average_precision(is_right, of_images, objects[part])
    return aps


def interval(scores: np.ndarray) -> tuple[float, float] | None:
    """Return where 95% of drawn scores lie; None unless at least half of them could be measured.

    Args:
      scores: float [R], NaN where there was nothing to measure.
    """
    measured = scores[~np.isnan(scores)]
    if not measured.size or 2 * measured.size < scores.size:
        return None
    low, high = np.percentile(measured, [(100 - _LEVEL) / 2, (100 + _LEVEL) / 2])
    return float(low), float(high)


def mean_over(scores: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Return the mean of what could be measured; NaN where nothing could."""
    counts = (~np.isnan(scores)).sum(axis=axis)
    return np.where(counts, np.nansum(scores, axis=axis) / np.maximum(counts, 1), np.nan)
