"""Many categories for the shapes data set: a category is a shape and about a colour.

The drawn images stay what they are; only what is said of them differs. It is said as in a federated
data set (LVIS): a few categories are in many images and most in few or none, each image names a few
that it has none of, and where it has two objects of one category the second is not annotated, and
that is said.
"""

import numpy as np

from . import shape_scene

_NUM_NEG = 10  # categories that an image is known to have none of
_UNEVENNESS = 0.6  # 0: all colours reach equally far


class Varieties:
    """So many categories.

    Category id k + 1 is shape k % 5 in colour k // 5. Colours are random; an object's is the one
    that is nearest to the mean of its pixels. The first ones count as nearer than they are, so that
    most objects have one of them.

    Args:
      num_categories: how many; at least one for each shape.
      seed: of the colours.
    """

    def __init__(self, num_categories: int, seed: int) -> None:
        self._num_categories = num_categories
        num_colours = -(-num_categories // len(shape_scene.CLASS_NAMES))
        self._colours = np.random.default_rng([seed, 2]).uniform(25, 230, [num_colours, 3])
        self._reach = (5.0 + np.arange(num_colours)) ** -_UNEVENNESS

    @property
    def names(self) -> list[str]:
        """By category id - 1."""
        shapes = shape_scene.CLASS_NAMES
        return [
            f"{shapes[k % len(shapes)]} {k // len(shapes)}" for k in range(self._num_categories)
        ]

    def category_id(self, scene_object: shape_scene.SceneObject, image: np.ndarray) -> int:
        """Return the category of an object.

        Args:
          scene_object: one of the image's.
          image: uint8 [H, W, 3], RGB.
        """
        ids = (
            1
            + scene_object.class_index
            + len(shape_scene.CLASS_NAMES) * np.arange(len(self._colours))
        )
        distances = np.linalg.norm(self._colours - image[scene_object.mask].mean(axis=0), axis=1)
        return int(ids[np.argmin((distances / self._reach)[ids <= self._num_categories])])

    def lists(self, rng: np.random.Generator, category_ids: list[int]) -> dict[str, list[int]]:
        """Say what else is known of an image with objects of these categories, one id an object."""
        present = set(category_ids)
        absent = [i for i in range(1, self._num_categories + 1) if i not in present]
        neg = rng.choice(absent, min(_NUM_NEG, len(absent)), replace=False)
        twice = {i for i in present if category_ids.count(i) > 1}
        return {
            "neg_category_ids": sorted(int(i) for i in neg),
            "not_exhaustive_category_ids": sorted(twice),
        }
