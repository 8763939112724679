"""Repeat-factor sampling: images of rare categories are seen several times an epoch.

Shape letters: `n` images, `c` categories.

Source: LVIS (Gupta et al., arXiv 1908.03195, section 5); Detectron2's RepeatFactorTrainingSampler,
which also draws anew in each epoch how a factor is rounded.
"""

import numpy as np


def of_images(num_categories: np.ndarray, categories: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often each image is to be seen in an epoch, on average.

    A category that is in the part f of all images asks for sqrt(threshold / f), at least 1; an
    image gets what the rarest of its categories asks for, and 1 if it has none.

    Args:
      num_categories: int [n], how many different categories each image has.
      categories: int [sum of num_categories], one image after the other.
      threshold: part of the images; categories in fewer are repeated.

    Returns:
      float64 [n], at least 1.
    """
    ids, category, counts = np.unique(categories, return_inverse=True, return_counts=True)
    factors = np.maximum(1.0, np.sqrt(threshold * len(num_categories) / counts))  # [c]
    image = np.repeat(np.arange(len(num_categories)), num_categories)
    of_image = np.ones(len(num_categories))
    if len(ids):
        np.maximum.at(of_image, image, factors[category.reshape(-1)])
    return of_image
