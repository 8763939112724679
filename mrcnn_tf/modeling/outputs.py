"""What a network puts out in training: everything that the losses compare.

Shape letters: `B` images, `S` sampled anchors, `R` sampled RoIs, `F` of them possibly positive, `N`
classes with background, `M` mask side, `K` keypoints, `T` side of their maps.
"""

from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.modeling import targets


class RPNOutputs(NamedTuple):
    """Of the region proposal network.

    Attributes:
      logits: float32 [B, S], of the sampled anchors.
      deltas: float32 [B, S, 4].
      targets: AnchorTargets.
    """

    logits: tf.Tensor
    deltas: tf.Tensor
    targets: targets.AnchorTargets

    def of_images(self, selected: tf.Tensor) -> "RPNOutputs":
        """Leave out the images that are not `selected`, bool [B]: their anchors are padding."""
        valid = self.targets.valid & selected[:, tf.newaxis]
        return self._replace(targets=self.targets._replace(valid=valid))


class MaskOutputs(NamedTuple):
    """Of the mask branch.

    Attributes:
      logits: float32 [B, F, M, M], of the true class of the first F sampled RoIs, among which
        are all positives; [B, F, M, M, 2] of `mask_classes.Softmax`.
      targets: float32 [B, F, M, M].
      valid: bool [B, F], positives whose object has a mask.
    """

    logits: tf.Tensor
    targets: tf.Tensor
    valid: tf.Tensor


class PointOutputs(NamedTuple):
    """Of a mask head that decides points.

    Attributes:
      logits: float32 [B, F, P], of the true class of the first F sampled RoIs.
      targets: float32 [B, F, P].
      valid: bool [B, F], positives whose object has a mask.
    """

    logits: tf.Tensor
    targets: tf.Tensor
    valid: tf.Tensor


class MaskIoUOutputs(NamedTuple):
    """Of a head that says how good a mask is.

    Attributes:
      ious: float32 [B, F], predicted for the masks of the true class of the first F sampled RoIs.
      targets: float32 [B, F], what they are.
      valid: bool [B, F], positives whose object has a mask.
    """

    ious: tf.Tensor
    targets: tf.Tensor
    valid: tf.Tensor


class BoxOutputs(NamedTuple):
    """Of a box head that looks at the boxes of another one.

    Attributes:
      class_logits: float32 [B, R, N].
      box_deltas: float32 [B, R, N-1, 4].
      roi_targets: RoITargets, not in the order of positives and negatives.
      taught_classes: see `DetectorOutputs`.
    """

    class_logits: tf.Tensor
    box_deltas: tf.Tensor
    roi_targets: targets.RoITargets
    taught_classes: tf.Tensor | None = None

    def of_images(self, selected: tf.Tensor) -> "BoxOutputs":
        """Leave out the images that are not `selected`, bool [B]: their RoIs are padding."""
        valid = self.roi_targets.valid & selected[:, tf.newaxis]
        return self._replace(roi_targets=self.roi_targets._replace(valid=valid))


class KeypointOutputs(NamedTuple):
    """Of the keypoint branch.

    Attributes:
      logits: float32 [B, F, K, T, T], of the first F sampled RoIs, among which are all positives.
      cells: int32 [B, F, K], where each keypoint is: row * T + column.
      valid: bool [B, F, K], annotated keypoints inside positive RoIs.
    """

    logits: tf.Tensor
    cells: tf.Tensor
    valid: tf.Tensor


class DetectorOutputs(NamedTuple):
    """Of Faster R-CNN and Mask R-CNN.

    Attributes:
      rpn: None where proposals are given.
      class_logits: float32 [B, R, N].
      box_deltas: float32 [B, R, N-1, 4].
      roi_targets: RoITargets.
      masks: None without a mask branch.
      later_stages: of the further box heads of a cascade.
      points: None unless the mask head decides points.
      mask_ious: None unless masks are scored.
      keypoints: None without a keypoint branch.
      taught_classes: bool [B, N], the classes that each image teaches; None for all.
    """

    rpn: RPNOutputs | None
    class_logits: tf.Tensor
    box_deltas: tf.Tensor
    roi_targets: targets.RoITargets
    masks: MaskOutputs | None = None
    later_stages: tuple[BoxOutputs, ...] = ()
    points: PointOutputs | None = None
    mask_ious: MaskIoUOutputs | None = None
    keypoints: KeypointOutputs | None = None
    taught_classes: tf.Tensor | None = None

    def of_images(self, selected: tf.Tensor) -> "DetectorOutputs":
        """Leave out the images that are not `selected`, bool [B]: nothing of them counts."""
        real = selected[:, tf.newaxis]
        rois, masks, points = self.roi_targets, self.masks, self.points
        ious = self.mask_ious
        keypoints = self.keypoints
        if keypoints:
            keypoints = keypoints._replace(valid=keypoints.valid & real[..., tf.newaxis])
        return self._replace(
            rpn=self.rpn.of_images(selected) if self.rpn else None,
            roi_targets=rois._replace(valid=rois.valid & real),
            masks=masks._replace(valid=masks.valid & real) if masks else None,
            later_stages=tuple(stage.of_images(selected) for stage in self.later_stages),
            points=points._replace(valid=points.valid & real) if points else None,
            mask_ious=ious._replace(valid=ious.valid & real) if ious else None,
            keypoints=keypoints,
        )
