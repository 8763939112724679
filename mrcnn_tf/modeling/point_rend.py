"""PointRend: masks are decided point by point, most of the points where they are undecided.

A 28 x 28 mask is too fine inside an object and too coarse at its edge. So there is a coarse mask of
7 x 7 of all classes, and a head that looks at single points: at the finest feature map and at the
coarse masks there (arXiv 1912.08193). In training it sees some points of each RoI. At inference a
mask is doubled again and again, and each time the least certain points are computed anew. As
Detectron2 has it.

Shape letters: `B` images, `R` RoIs, `F` RoIs with a mask, `P` points, `C` channels, `S` side of the
coarse mask, `N` classes with background, `K` without.
"""

import tensorflow as tf
import tf_keras

from mrcnn_tf.data import schema
from mrcnn_tf.experiment.fields import MaskHead as MaskDefaults
from mrcnn_tf.experiment.fields import PointRend as Defaults
from mrcnn_tf.modeling import losses, mask_classes
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.modeling.outputs import DetectorOutputs, MaskOutputs, PointOutputs
from mrcnn_tf.modeling.roi_heads import FPNRoIHeads
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import leading, sampling
from mrcnn_tf.ops import masks as mask_ops
from mrcnn_tf.ops import points as point_ops


class PointRendMaskHead(tf_keras.layers.Layer):
    """The coarse masks, the head of the points, and the way from one to the other.

    The numbers are described in `fields.PointRend`, whose names they have; those of training are
    asked by the network, which draws the points.

    Args:
      num_classes: N, with background.
      target: how the network makes the coarse masks' targets, see `fields.MaskHead`.
      target_sampling_ratio: likewise.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        num_points: int = Defaults.num_points,
        oversampling: int = Defaults.oversampling,
        uncertain_fraction: float = Defaults.uncertain_fraction,
        on_refined_boxes: bool = Defaults.on_refined_boxes,
        coarse_size: int = Defaults.coarse_size,
        coarse_channels: int = Defaults.coarse_channels,
        coarse_fc_layers: int = Defaults.coarse_fc_layers,
        coarse_fc_channels: int = Defaults.coarse_fc_channels,
        fc_layers: int = Defaults.fc_layers,
        fc_channels: int = Defaults.fc_channels,
        first_size: int = Defaults.first_size,
        subdivisions: int = Defaults.subdivisions,
        points_per_subdivision: int = Defaults.points_per_subdivision,
        target: str = MaskDefaults.target,
        target_sampling_ratio: int = MaskDefaults.target_sampling_ratio,
        name: str = "mask_head",
    ):
        super().__init__(name=name)
        self.num_points = num_points
        self.oversampling = oversampling
        self.uncertain_fraction = uncertain_fraction
        self.on_refined_boxes = on_refined_boxes
        self.mask_size = coarse_size  # of which the network makes targets
        self.kind = mask_classes.Independent()
        self.target = target
        self.target_sampling_ratio = target_sampling_ratio
        self._first_size = first_size
        self._subdivisions = subdivisions
        self._points_per_subdivision = points_per_subdivision
        self.coarse_head = CoarseHead(
            num_classes, coarse_size, coarse_channels, coarse_fc_layers, coarse_fc_channels
        )
        self.point_head = PointHead(num_classes, fc_layers, fc_channels)

    @property
    def per_class(self) -> tuple[int, bool] | None:
        """Of the points' predictor's last axis, see `mask_classes.Independent.per_class`."""
        return self.kind.per_class(1)

    def coarse(self, features: dict[int, tf.Tensor], boxes: tf.Tensor) -> tf.Tensor:
        """Coarse mask logits of all classes.

        Args:
          features: {level: [B, Hl, Wl, C]}, of which the finest level is looked at.
          boxes: float32 [B, R, 4], network-input pixels; no gradient to them.

        Returns:
          float32 [B, R, S, S, K].
        """
        side = 2 * self.mask_size
        grid = point_ops.cell_centres(tf.range(side * side), side)
        num_images, num_boxes = tf.unstack(tf.shape(boxes)[:2])
        points = tf.broadcast_to(grid, [num_images, num_boxes, side * side, 2])
        seen = _finest_at(features, boxes, points)  # [B, R, side * side, C]
        # [B, R, side * side, C] -> [B * R, side, side, C] -> [B * R, S, S, K] -> [B, R, S, S, K]
        logits = self.coarse_head(tf.reshape(seen, [-1, side, side, seen.shape[-1]]))
        return tf.reshape(logits, [num_images, num_boxes, *logits.shape[1:]])

    def at_points(
        self,
        features: dict[int, tf.Tensor],
        boxes: tf.Tensor,
        coarse: tf.Tensor,
        points: tf.Tensor,
        classes: tf.Tensor,
    ) -> tf.Tensor:
        """Mask logits of one class per RoI at points.

        Args:
          features: {level: [B, Hl, Wl, C]}.
          boxes: float32 [B, R, 4], network-input pixels.
          coarse: float32 [B, R, S, S, K], what `coarse` makes of them.
          points: float32 [B, R, P, (y, x)], in the unit square of each box; P is known.
          classes: int32 [B, R], 1..N-1; what stands where there is no RoI does not matter.

        Returns:
          float32 [B, R, P].
        """
        fine = _finest_at(features, boxes, points)  # [B, R, P, C]
        side, num_points = self.mask_size, points.shape[2]
        coarse = point_ops.sample(  # [B * R, P, K]
            tf.reshape(coarse, [-1, side, side, coarse.shape[-1]]),
            tf.reshape(points * float(side), [-1, num_points, 2]),
        )
        logits = self.point_head(
            tf.reshape(fine, [-1, num_points, fine.shape[-1]]), coarse, tf.reshape(classes, [-1])
        )
        return tf.reshape(logits, tf.shape(points)[:3])

    def render(
        self, features: dict[int, tf.Tensor], boxes: tf.Tensor, classes: tf.Tensor
    ) -> tf.Tensor:
        """Mask logits, float32 [B, R, M, M]: M is `first_size`, doubled `subdivisions` times.

        Arguments as of `at_points`.
        """
        coarse = self.coarse(features, boxes)
        num_images, num_boxes = tf.unstack(tf.shape(boxes)[:2])

        def logits_at(index: tf.Tensor, side: int) -> tf.Tensor:
            """Of cells [B * R, P] of a grid: [B * R, P]."""
            shape = [num_images, num_boxes, index.shape[1]]
            points = tf.reshape(point_ops.cell_centres(index, side), [*shape, 2])
            logits = self.at_points(features, boxes, coarse, points, classes)
            return tf.reshape(logits, [-1, index.shape[1]])

        side = self._first_size
        cells = tf.range(side * side)[tf.newaxis]
        logits = logits_at(tf.tile(cells, [num_images * num_boxes, 1]), side)  # [B * R, M * M]
        for _ in range(self._subdivisions):
            logits = doubled(tf.reshape(logits, [-1, side, side]))
            side *= 2
            logits = tf.reshape(logits, [-1, side * side])
            count = min(self._points_per_subdivision, side * side)
            _, index = tf.math.top_k(-tf.abs(logits), count)
            logits = _put(logits, index, logits_at(index, side))
        return tf.reshape(logits, [num_images, num_boxes, side, side])


class CoarseHead(tf_keras.layers.Layer):
    """A convolution that halves the RoI feature, hidden layers, the masks of all classes.

    Args:
      num_classes: N, with background.
      size: S.
      channels: of the convolution.
      fc_layers: hidden layers.
      fc_channels: of each.
      name: layer name.
    """

    def __init__(
        self,
        num_classes: int,
        size: int,
        channels: int,
        fc_layers: int,
        fc_channels: int,
        name: str = "coarse_head",
    ):
        super().__init__(name=name)
        self._mask_shape = [size, size, num_classes - 1]
        self.conv = tf_keras.layers.Conv2D(
            channels, 2, strides=2, activation="relu", kernel_initializer=_msra(), name="conv"
        )
        self.hidden = [
            tf_keras.layers.Dense(
                fc_channels,
                activation="relu",
                kernel_initializer=tf_keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{i + 1}",
            )
            for i in range(fc_layers)
        ]
        self.mask_logits = tf_keras.layers.Dense(
            size * size * (num_classes - 1),
            kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
            name="mask_logits",
        )

    def call(self, roi_features: tf.Tensor) -> tf.Tensor:
        """[B * R, 2S, 2S, C] -> float32 [B * R, S, S, K]."""
        hidden = self.conv(roi_features)
        hidden = tf.reshape(hidden, [-1, hidden.shape[1] * hidden.shape[2] * hidden.shape[3]])
        for layer in self.hidden:
            hidden = layer(hidden)
        return tf.reshape(tf.cast(self.mask_logits(hidden), tf.float32), [-1, *self._mask_shape])


class PointHead(tf_keras.layers.Layer):
    """The same layers for each point; each sees the coarse logits of all classes once more.

    Args:
      num_classes: N, with background.
      fc_layers: hidden layers.
      fc_channels: of each.
      name: layer name.
    """

    def __init__(
        self, num_classes: int, fc_layers: int, fc_channels: int, name: str = "point_head"
    ):
        super().__init__(name=name)
        self.num_classes = num_classes
        self.hidden = [
            tf_keras.layers.Dense(
                fc_channels, activation="relu", kernel_initializer=_msra(), name=f"fc{i + 1}"
            )
            for i in range(fc_layers)
        ]

    def build(self, input_shape) -> None:
        """Create the predictor's weights: one column per foreground class."""
        channels = self.hidden[-1].units if self.hidden else input_shape[-1]
        foreground = self.num_classes - 1
        self.predictor_kernel = self.add_weight(
            name="predictor_kernel",
            shape=[channels + foreground, foreground],
            initializer=tf_keras.initializers.RandomNormal(stddev=0.001),
        )
        self.predictor_bias = self.add_weight(
            name="predictor_bias", shape=[foreground], initializer="zeros"
        )
        super().build(input_shape)

    def call(self, fine: tf.Tensor, coarse: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        """Mask logits of one class per RoI.

        Args:
          fine: [B * R, P, C], features.
          coarse: float32 [B * R, P, K], logits.
          classes: int32 [B * R].

        Returns:
          float32 [B * R, P].
        """
        coarse = tf.cast(coarse, fine.dtype)
        hidden = tf.concat([fine, coarse], axis=-1)
        for layer in self.hidden:
            hidden = tf.concat([layer(hidden), coarse], axis=-1)
        columns = tf.clip_by_value(classes - 1, 0, self.num_classes - 2)
        kernel = tf.gather(tf.transpose(self.predictor_kernel), columns)  # [B * R, Cout + K]
        bias = tf.gather(self.predictor_bias, columns)
        # [B * R, P, Cout + K] x [B * R, Cout + K, 1]
        logits = tf.matmul(hidden, tf.cast(kernel, hidden.dtype)[:, :, tf.newaxis])[..., 0]
        return tf.cast(logits, tf.float32) + tf.cast(bias, tf.float32)[:, tf.newaxis]


class PointRendRoIHeads(FPNRoIHeads):
    """The FPN heads with a mask branch that decides points.

    Args:
      box_head: see `FPNRoIHeads`.
      mask_head: decides points.
      roi_align: pools for the box head.
      name: layer name.
    """

    mask_head: PointRendMaskHead

    def masks(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Mask logits [B, R, M, M] of `rois` for `classes` [B, R], see `render`."""
        del training
        return self.mask_head.render(features, rois, classes)

    def train(
        self,
        features: dict[int, tf.Tensor],
        rois: tf.Tensor,
        classes: tf.Tensor,
        num_masks: tf.Tensor,
        training: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, None]:
        """The box branch; the mask branch follows when points can be drawn."""
        del classes, num_masks
        return *self.boxes(features, rois, training), None


class PointRendRCNN(MaskRCNN):
    """A `MaskRCNN` whose masks are decided point by point; arguments as there."""

    roi_heads: PointRendRoIHeads

    def with_later_parts(
        self,
        outputs: DetectorOutputs,
        features: dict[int, tf.Tensor],
        batch: dict[str, tf.Tensor],
        seed: int,
        step: tf.Tensor,
        training: bool,
    ) -> DetectorOutputs:
        """The outputs without masks, then these; see `MaskRCNN`."""
        del training
        head, max_masks = self.roi_heads.mask_head, self.roi_heads.box_head.max_positives
        rois = outputs.roi_targets
        if head.on_refined_boxes:
            rois = rois._replace(rois=self._refined(outputs))
        count = leading.num_rows(rois.is_positive[:, :max_masks])
        boxes, classes = rois.rois[:, :count], rois.classes[:, :count]
        coarse = head.coarse(features, boxes)  # [B, F, S, S, K]
        is_class = tf.one_hot(classes - 1, coarse.shape[-1])[:, :, tf.newaxis, tf.newaxis]
        of_class = tf.reduce_sum(coarse * is_class, axis=-1)  # [B, F, S, S]
        masks = MaskOutputs(of_class, *self._mask_targets(rois, count, batch))
        points = point_ops.uncertain(
            of_class,
            sampling.image_seeds(seed, step, batch[schema.IMAGE_KEY], stream=2),
            max_masks,
            head.num_points,
            head.oversampling,
            head.uncertain_fraction,
        )
        targets = mask_ops.masks_at_points(
            batch[schema.GT_MASK_BITS],
            batch[schema.GT_MASK_OFFSETS],
            batch[schema.GT_MASK_SIZES],
            batch[schema.GT_MASK_FRAMES],
            batch[schema.IMAGE_SIZE_HW],
            point_ops.in_boxes(points, boxes),
            rois.gt_index[:, :count],
        )
        logits = head.at_points(features, boxes, coarse, points, classes)
        return outputs._replace(masks=masks, points=PointOutputs(logits, targets, masks.valid))

    def losses_of(self, outputs: DetectorOutputs) -> dict[str, losses.LossSum]:
        """Those of `MaskRCNN`, whose `mask_loss` is of the coarse masks, and `point_loss`."""
        points = outputs.points
        assert points is not None
        of_points = losses.point_loss(points.logits, points.targets, points.valid)
        return super().losses_of(outputs) | {"point_loss": of_points}

    def _refined(self, outputs: DetectorOutputs) -> tf.Tensor:
        """What the box head makes of the RoIs for the true class: float32 [B, R, 4], no gradient.

        A RoI stays where the answer is not finite.
        """
        rois = outputs.roi_targets
        column = tf.maximum(rois.classes - 1, 0)
        deltas = tf.gather(outputs.box_deltas, column, batch_dims=2)  # [B, R, 4]
        boxes = box_ops.decode(deltas, rois.rois, self.roi_heads.box_head.regression_weights)
        finite = tf.reduce_all(tf.math.is_finite(boxes), axis=-1, keepdims=True)
        return tf.stop_gradient(tf.where(finite, boxes, rois.rois))


def doubled(maps: tf.Tensor) -> tf.Tensor:
    """Double the side of maps by bilinear interpolation between pixel centres.

    In plain operations, which every runtime has: a new pixel is three quarters of the one it lies
    in and a quarter of the one it is nearest to, which at the border is the same.

    Args:
      maps: [R, M, M].

    Returns:
      [R, 2M, 2M].
    """
    for axis in (1, 2):
        side = maps.shape[axis]
        before = tf.gather(maps, [0, *range(side - 1)], axis=axis)
        after = tf.gather(maps, [*range(1, side), side - 1], axis=axis)
        pairs = tf.stack([0.25 * before + 0.75 * maps, 0.75 * maps + 0.25 * after], axis=axis + 1)
        sides = list(maps.shape[1:])
        sides[axis - 1] *= 2
        maps = tf.reshape(pairs, [-1, *sides])
    return maps


def _finest_at(features: dict[int, tf.Tensor], boxes: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """The finest level at points [B, R, P, (y, x)] of boxes' unit squares: [B, R, P, C]."""
    level = min(features)
    placed = point_ops.in_boxes(points, tf.stop_gradient(boxes)) / 2.0**level
    num_images, num_boxes = tf.unstack(tf.shape(boxes)[:2])
    num_points, channels = points.shape[2], features[level].shape[-1]
    seen = point_ops.sample(
        features[level], tf.reshape(placed, [num_images, num_boxes * num_points, 2])
    )
    return tf.reshape(seen, [num_images, num_boxes, num_points, channels])


def _put(values: tf.Tensor, index: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Replace `values` [R, N] at `index` [R, P] of each row by `new` [R, P]."""
    length = values.shape[1]
    first = tf.range(tf.shape(values)[0])[:, tf.newaxis] * length
    place = tf.reshape(first + index, [-1, 1])
    flat = tf.reshape(values, [-1])
    flat = tf.tensor_scatter_nd_update(flat, place, tf.reshape(new, [-1]))
    return tf.reshape(flat, [-1, length])


def _msra() -> tf_keras.initializers.Initializer:
    """Detectron2's `c2_msra_fill`; a copy each, as an unseeded initializer called twice warns."""
    return tf_keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
