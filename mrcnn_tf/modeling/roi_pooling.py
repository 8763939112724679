"""RoIAlign as a part of a network: an op with its conventions, and no weights.

Shape letters: `B` images, `Hl Wl` size of level l, `R` RoIs, `C` channels.
"""

import tensorflow as tf

from mrcnn_tf.experiment.fields import RoIAlign as Defaults
from mrcnn_tf.ops import roi_align


class RoIAlign:
    """Pools RoIs from the level that suits their size, or from the only one (section 3).

    Args:
      aligned: see `roi_align.roi_align`.
      sampling_ratio: see there; 0 is adaptive.
      log_epsilon: `epsilon` of `roi_align.assign_levels`.
      level_epsilon: see there.
    """

    def __init__(
        self,
        aligned: bool = Defaults.aligned,
        sampling_ratio: int = Defaults.sampling_ratio,
        log_epsilon: float = Defaults.log_epsilon,
        level_epsilon: float = Defaults.level_epsilon,
    ):
        self._aligned = aligned
        self._sampling_ratio = sampling_ratio
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
        return roi_align.roi_align(
            features, rois, levels, output_size, self._sampling_ratio, self._aligned
        )
