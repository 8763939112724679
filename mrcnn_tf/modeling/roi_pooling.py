"""RoIAlign and what the paper compares it with, as parts of a network: conventions and no weights.

Shape letters: `B` images, `Hl Wl` size of level l, `R` RoIs, `C` channels.
"""

from collections.abc import Callable

import tensorflow as tf

from mrcnn_tf.experiment import fields
from mrcnn_tf.modeling import arguments
from mrcnn_tf.ops import roi_align, roi_pool, roi_warp

Defaults = fields.RoIAlign


class RoIPool:
    """Pools RoIs from the level that suits their size, or from the only one; see `ops/roi_pool.py`.

    Args:
      log_epsilon: `epsilon` of `roi_align.assign_levels`.
      level_epsilon: see there.
    """

    def __init__(
        self,
        log_epsilon: float = Defaults.log_epsilon,
        level_epsilon: float = Defaults.level_epsilon,
    ):
        self._epsilons = log_epsilon, level_epsilon

    def __call__(
        self, features: dict[int, tf.Tensor], rois: tf.Tensor, output_size: int
    ) -> tf.Tensor:
        """Pool.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          rois: float32 [B, R, (y1, x1, y2, x2)], network-input pixels; no gradient to them.
          output_size: side of the result.

        Returns:
          [B, R, output_size, output_size, C].
        """
        levels = None
        if len(features) > 1:
            levels = roi_align.assign_levels(
                rois,
                min(features),
                max(features),
                epsilon=self._epsilons[0],
                level_epsilon=self._epsilons[1],
            )
        return self._pool(features, rois, levels, output_size)

    def _pool(self, features, rois, levels, output_size):
        return roi_pool.roi_pool(features, rois, levels, output_size)


class RoIAlign(RoIPool):
    """As `RoIPool`, by samples between the pixels (section 3); see `ops/roi_align.py`.

    Args:
      aligned: see `roi_align.roi_align`.
      sampling_ratio: see there; 0 is adaptive.
      aggregate: see there.
      log_epsilon: as of `RoIPool`.
      level_epsilon: likewise.
    """

    def __init__(
        self,
        aligned: bool = Defaults.aligned,
        sampling_ratio: int = Defaults.sampling_ratio,
        aggregate: str = Defaults.aggregate,
        log_epsilon: float = Defaults.log_epsilon,
        level_epsilon: float = Defaults.level_epsilon,
    ):
        super().__init__(log_epsilon, level_epsilon)
        self._sampling = sampling_ratio, aligned, aggregate

    def _pool(self, features, rois, levels, output_size):
        return roi_align.roi_align(features, rois, levels, output_size, *self._sampling)


class RoIWarp(RoIAlign):
    """As `RoIAlign`, on boxes whose edges are rounded; see `ops/roi_warp.py`."""

    def _pool(self, features, rois, levels, output_size):
        return roi_warp.roi_warp(features, rois, levels, output_size, *self._sampling)


# `roi_align.type`.
POOLINGS: dict[str, Callable[..., RoIPool]] = {
    "roi_align": RoIAlign,
    "roi_warp": RoIWarp,
    "roi_pool": RoIPool,
}


def build(pooling: fields.RoIAlign) -> RoIPool:
    """Build what `pooling.type` names, with the fields that it has."""
    layer = POOLINGS[pooling.type]
    return layer(**arguments.taken(layer, vars(pooling)))
