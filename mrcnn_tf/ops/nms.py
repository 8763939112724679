"""Greedy non-maximum suppression of batches, with fixed counts.

Shape letters: `B` images (or images times levels), `N` boxes each, `M` outputs each, `T` boxes per
tile. Boxes as in `ops/boxes.py`.

Without groups it is written twice, see `implementation.py`. The tiled one consists of ordinary
tensor operations on all images at once. TensorFlow's C++ kernel takes one image at a time, on a
CPU; there it beats the tiled one where many boxes overlap (`benchmarks/op_choices.py`,
`nms_kernel`).
"""

import tensorflow as tf

from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import implementation

# Boxes judged in one round. Twice as many need half as many rounds, but four times the memory and
# work inside a tile. Half and twice as many cost little more on a CPU, all 1000 of a level twice as
# much (`benchmarks/op_choices.py`, `nms_tiles`).
TILE_SIZE = 256


def nms(boxes, scores, valid, iou_threshold, max_outputs, groups=None):
    """Keep the highest scores, dropping boxes that overlap a kept one of their group.

    Exact greedy suppression: in order of descending score, the lower index first among equal
    scores, a box is kept unless its IoU with a box kept before is strictly above the threshold.
    No gradient flows.

    Args:
      boxes: float32 [B, N, (y1, x1, y2, x2)], any unit. Empty boxes suppress nothing.
      scores: float32 [B, N], finite where valid.
      valid: bool [B, N]: boxes that take part.
      iou_threshold: IoU up to which two boxes of a group may both be kept, in [0, 1].
      max_outputs: Python int M.
      groups: int32 [B, N] or None: boxes of different groups (classes, levels) do not suppress each
        other. Ids are compared; nothing is added to the coordinates to keep groups apart, which
        would round them.

    Returns:
      index: int32 [B, M], the kept boxes in order of descending score; 0 where not valid.
      valid: bool [B, M].

    Raises:
      ValueError: iou_threshold is outside [0, 1].

    Source: `torchvision.ops.batched_nms`, which Detectron2 calls too.
    """
    if not 0.0 <= iou_threshold <= 1.0:
        raise ValueError(f"iou_threshold {iou_threshold} is outside [0, 1]")
    boxes = tf.stop_gradient(tf.cast(boxes, tf.float32))
    scores = tf.stop_gradient(tf.cast(scores, tf.float32))
    scores = tf.where(valid, scores, -float("inf"))
    # The kernel knows no groups.
    suppress = _tiled_nms if groups is not None else _either_nms
    index, num_kept = suppress(boxes, scores, groups, iou_threshold, max_outputs)
    index = tf.ensure_shape(index, [boxes.shape[0], max_outputs])
    index_valid = tf.range(max_outputs) < num_kept[:, tf.newaxis]
    return tf.where(index_valid, index, 0), index_valid


def _kernel_nms(boxes, scores, groups, iou_threshold, max_outputs):
    """Suppress with TensorFlow's C++ kernel, image by image; see `_tiled_nms`."""
    del groups  # None
    # The kernel would swap the corners of a reversed box. Here such a box is empty.
    boxes = tf.concat([boxes[..., :2], tf.maximum(boxes[..., :2], boxes[..., 2:])], axis=-1)

    def one_image(boxes_and_scores):
        index, num_kept = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes_and_scores[0],
            scores=boxes_and_scores[1],
            max_output_size=max_outputs,
            iou_threshold=iou_threshold,
            score_threshold=-float("inf"),  # strictly above it: drops what is not valid
            pad_to_max_output_size=True,
        )
        return index, num_kept

    types = (tf.TensorSpec([max_outputs], tf.int32), tf.TensorSpec([], tf.int32))
    return tf.map_fn(one_image, (boxes, scores), fn_output_signature=types)


def _tiled_nms(boxes, scores, groups, iou_threshold, max_outputs):
    """Suppress in rounds, each time the `TILE_SIZE` highest scores that are left.

    A round drops the boxes of its tile that overlap one kept in an earlier round, settles the rest
    among themselves, and appends the survivors to the kept ones. It ends as soon as every image has
    all its outputs or no valid boxes are left. Taking the highest scores anew in each round is
    cheaper than sorting all of them, since few of the many (box, class) candidates are ever seen.

    Args:
      boxes: float32 [B, N, 4].
      scores: float32 [B, N]; -inf: not valid.
      groups: int32 [B, N] or None.
      iou_threshold: see `nms`.
      max_outputs: M.

    Returns:
      int32 [B, M] indices of the kept boxes, descending scores, and their number int32 [B].
    """
    batch_size, num_boxes = tf.unstack(tf.shape(scores))
    tile_size = min(scores.shape[1] or TILE_SIZE, TILE_SIZE)
    padding = [[0, 0], [0, tf.maximum(tile_size - num_boxes, 0)]]
    scores = tf.pad(scores, padding, constant_values=-float("inf"))
    boxes = tf.pad(boxes, [*padding, [0, 0]])
    groups = None if groups is None else tf.pad(groups, padding)
    num_valid = tf.math.count_nonzero(scores > -float("inf"), axis=1, dtype=tf.int32)  # [B]

    def select(index):
        """Return boxes and groups of index [B, K]."""
        picked = tf.gather(boxes, index, axis=1, batch_dims=1)
        return picked, None if groups is None else tf.gather(groups, index, axis=1, batch_dims=1)

    def write(tensor, column, values):
        """Set tensor[b, column[b, t]] = values[b, t]."""
        image = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(column))
        return tf.tensor_scatter_nd_update(tensor, tf.stack([image, column], axis=-1), values)

    def is_unfinished(num_rounds, left, kept, num_kept):
        del left, kept
        return tf.reduce_any((num_kept < max_outputs) & (num_rounds * tile_size < num_valid))

    def judge_tile(num_rounds, left, kept, num_kept):
        tile_scores, tile = tf.math.top_k(left, k=tile_size)  # [B, T]
        left = write(left, tile, tf.fill(tf.shape(tile), -float("inf")))
        is_kept = tf.range(max_outputs) < num_kept[:, tf.newaxis]  # [B, M]
        overlaps = _suppresses(*select(kept[:, :max_outputs]), *select(tile), iou_threshold)
        suppressed = tf.reduce_any(overlaps & is_kept[:, :, tf.newaxis], axis=1)  # [B, M, T] -> T
        keep = (tile_scores > -float("inf")) & ~suppressed
        keep = _settle_tile(*select(tile), keep, iou_threshold)
        slot = num_kept[:, tf.newaxis] + tf.cumsum(tf.cast(keep, tf.int32), axis=1, exclusive=True)
        # What is not kept, or one too many, goes to the spare slot at the end.
        kept = write(kept, tf.where(keep, tf.minimum(slot, max_outputs), max_outputs), tile)
        num_kept += tf.math.count_nonzero(keep, axis=1, dtype=tf.int32)
        return num_rounds + 1, left, kept, tf.minimum(num_kept, max_outputs)

    kept = tf.zeros([batch_size, max_outputs + 1], tf.int32)
    start = (0, scores, kept, tf.zeros_like(num_valid))
    _, _, kept, num_kept = tf.while_loop(is_unfinished, judge_tile, start)
    return kept[:, :max_outputs], num_kept


def _suppresses(boxes, groups, other_boxes, other_groups, iou_threshold):
    """Say which of boxes [B, N, 4] would suppress which of the others [B, M, 4]: bool [B, N, M]."""
    overlaps = box_ops.iou(boxes, other_boxes) > iou_threshold
    if groups is None:
        return overlaps
    return overlaps & (groups[:, :, tf.newaxis] == other_groups[:, tf.newaxis, :])


def _settle_tile(boxes, groups, valid, iou_threshold):
    """Suppress the boxes of a tile among themselves.

    Start from all valid boxes, drop those that an earlier kept one suppresses, and repeat with the
    boxes now kept until nothing changes. The first box is right from the start, and each repetition
    makes at least one more box right for good, so this ends in the result of the greedy algorithm,
    usually after a handful of repetitions.

    Args:
      boxes: float32 [B, T, 4], descending scores.
      groups: int32 [B, T] or None.
      valid: bool [B, T].
      iou_threshold: see `nms`.

    Returns:
      bool [B, T], the boxes that are kept.
    """
    rank = tf.range(tf.shape(valid)[1])
    earlier = rank[:, tf.newaxis] < rank[tf.newaxis, :]  # [T, T]
    suppresses = _suppresses(boxes, groups, boxes, groups, iou_threshold) & earlier  # [B, T, T]

    def is_unsettled(keep, changed):
        del keep
        return changed

    def repeat(keep, changed):
        del changed
        suppressed = tf.reduce_any(suppresses & keep[:, :, tf.newaxis], axis=1)
        new_keep = valid & ~suppressed
        return new_keep, tf.reduce_any(new_keep != keep)

    keep, _ = tf.while_loop(is_unsettled, repeat, (valid, True))
    return keep


_either_nms = implementation.Either(for_accelerators=_tiled_nms, for_cpus=_kernel_nms)
