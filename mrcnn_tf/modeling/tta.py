"""Test-time augmentation: each image in several sizes and mirrored, one answer.

As Detectron2's `GeneralizedRCNNWithTTA`:

1. Every view is searched by itself, up to the NMS of its boxes.
2. The boxes of all views are laid into one frame, and NMS keeps the best of them.
3. Of those, each view gives its own M x M probabilities, and their mean is the mask.

The network is not changed and does not know: whoever wants it calls `AugmentedInference` in the
place of `MaskRCNN.infer`. It keeps the features of all views until the masks are done, where
Detectron2 computes them twice.

Shape letters: `B` images, `H W` canvas, `V` views, mirrored ones included, `D` detections, `M` mask
side.
"""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.data import schema
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.modeling.mask_rcnn import MaskRCNN
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import leading, nms


class View(NamedTuple):
    """The images of a batch in one size.

    Attributes:
      images: float32 [B, H, W, 3], normalised, zero-padded at the bottom and right.
      image_size_hw: float32 [B, (height, width)], the image inside the canvas.
    """

    images: tf.Tensor
    image_size_hw: tf.Tensor

    def mirrored(self) -> "View":
        """The images left to right; their padding stays where it is."""
        widths = tf.cast(self.image_size_hw[:, 1], tf.int32)
        return self._replace(images=tf.reverse_sequence(self.images, widths, 2, 0))


class _Seen(NamedTuple):
    """A view that the network has looked at.

    Attributes:
      features: {level: [B, Hl, Wl, C]}.
      image_size_hw: float32 [B, 2].
      is_mirrored: whether left is right.
    """

    features: dict[int, tf.Tensor]
    image_size_hw: tf.Tensor
    is_mirrored: bool

    def to_frame(self, boxes: tf.Tensor, frame_hw: tf.Tensor) -> tf.Tensor:
        """Boxes [B, D, 4] of the view in pixels of an image of another size, [B, 2]."""
        if self.is_mirrored:
            boxes = _mirrored(boxes, self.image_size_hw)
        return boxes * _ratio(frame_hw, self.image_size_hw)

    def from_frame(self, boxes: tf.Tensor, frame_hw: tf.Tensor) -> tf.Tensor:
        """The way back."""
        boxes = boxes * _ratio(self.image_size_hw, frame_hw)
        return _mirrored(boxes, self.image_size_hw) if self.is_mirrored else boxes


class AugmentedInference:
    """Finds objects by looking several times.

    Args:
      flips: look at the mirror image of each view too.
      nms_iou: of boxes of one class that overlap by more, the better stays, whichever view it is
        of.
      max_instances: D.
    """

    def __init__(self, flips: bool, nms_iou: float, max_instances: int):
        self._flips = flips
        self._nms_iou = nms_iou
        self._max_instances = max_instances

    def infer(
        self,
        model: MaskRCNN,
        batch: dict[str, tf.Tensor],
        features: dict[int, tf.Tensor] | None = None,
    ) -> Detections:
        """Find objects in a batch with views as in `data/schema.py`, in the place of `model.infer`.

        Args:
          model: an RPN of its own is needed.
          batch: the batch.
          features: of its images, which are not looked at here.

        Returns:
          Detections in the frame of the batch's images.
        """
        del features
        return self.detect(model, views_of(batch), batch[schema.IMAGE_SIZE_HW])

    def detect(self, model: MaskRCNN, views: Sequence[View], frame_hw: tf.Tensor) -> Detections:
        """Find objects; see the module.

        Args:
          model: an RPN of its own is needed.
          views: of the same images.
          frame_hw: float32 [B, (height, width)], of which image boxes are wanted in pixels.

        Returns:
          Detections; masks None without a mask head.
        """
        both = [(view, False) for view in views]
        if self._flips:
            both = [pair for view in views for pair in ((view, False), (view.mirrored(), True))]
        seen = [
            _Seen(model.features(view.images, training=False), view.image_size_hw, is_mirrored)
            for view, is_mirrored in both
        ]
        found = self._united([_boxes(model, one, frame_hw) for one in seen])
        if model.roi_heads.mask_head is None:
            return found
        masks = tf.add_n([_masks(model, one, found, frame_hw) for one in seen]) / len(seen)
        return found._replace(masks=masks)

    def _united(self, parts: Sequence[Detections]) -> Detections:
        """The best of what all views found, [B, D] out of [B, V*D]."""
        boxes, classes, scores, valid = (
            tf.concat(values, axis=1) for values in list(zip(*parts, strict=True))[:4]
        )
        index, kept = nms.nms(
            boxes, scores, valid, self._nms_iou, self._max_instances, groups=classes
        )
        return Detections(
            tf.where(kept[..., tf.newaxis], tf.gather(boxes, index, batch_dims=1), 0.0),
            tf.where(kept, tf.gather(classes, index, batch_dims=1), 0),
            tf.where(kept, tf.gather(scores, index, batch_dims=1), 0.0),
            kept,
        )


def views_of(batch: dict[str, tf.Tensor]) -> list[View]:
    """The views of a batch as in `data/schema.py`, in their order."""
    views: list[View] = []
    while schema.view_image(len(views)) in batch:
        k = len(views)
        views.append(View(batch[schema.view_image(k)], batch[schema.view_size_hw(k)]))
    return views


def _boxes(model: MaskRCNN, seen: _Seen, frame_hw: tf.Tensor) -> Detections:
    """What is found in one view, in the common frame, without masks."""
    assert model.rpn is not None  # checked with the experiment
    proposals = model.rpn(seen.features, seen.image_size_hw)
    found = model.find_boxes(seen.features, proposals, seen.image_size_hw)
    boxes = box_ops.clip(seen.to_frame(found.boxes, frame_hw), frame_hw)
    valid = found.valid & box_ops.is_nonempty(boxes)
    return found._replace(boxes=tf.where(valid[..., tf.newaxis], boxes, 0.0), valid=valid)


def _masks(model: MaskRCNN, seen: _Seen, found: Detections, frame_hw: tf.Tensor) -> tf.Tensor:
    """Probabilities [B, D, M, M] that one view gives inside the common boxes; 0 behind the last."""
    mask_head = model.roi_heads.mask_head
    assert mask_head is not None
    logits = leading.only(
        leading.num_rows(found.valid),
        lambda boxes, classes: model.roi_heads.masks(seen.features, boxes, classes, False),
        seen.from_frame(found.boxes, frame_hw),
        found.classes,
    )
    is_found = found.valid[..., tf.newaxis, tf.newaxis]
    masks = tf.where(is_found, mask_head.kind.probabilities(logits), 0.0)
    return masks[..., ::-1] if seen.is_mirrored else masks


def _mirrored(boxes: tf.Tensor, image_size_hw: tf.Tensor) -> tf.Tensor:
    """Boxes [B, D, 4] in the mirror image, left to right."""
    y1, x1, y2, x2 = tf.unstack(boxes, axis=-1)
    width = image_size_hw[:, 1:]  # [B, 1]
    return tf.stack([y1, width - x2, y2, width - x1], axis=-1)


def _ratio(to_hw: tf.Tensor, from_hw: tf.Tensor) -> tf.Tensor:
    """What multiplies coordinates on the way from one size [B, 2] to another: [B, 1, 4]."""
    return tf.tile(to_hw / from_hw, [1, 2])[:, tf.newaxis, :]
