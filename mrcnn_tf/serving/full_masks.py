"""Masks in the image's own frame, beside those in their boxes: outputs that an export may have.

Shape letters: `B` images, `D` detections, `V` all detections of a request, `M` mask side.

The masks of the network are M x M in their boxes, 0.3 MB for a hundred of them. Who wants pixels
pastes them (`ops/paste.py`), or has an export do it, for clients without that code. Pasted masks
are as large as images, each of them; run lengths are small and exact.
"""

from collections.abc import Callable

import tensorflow as tf

from mrcnn_tf.ops import coco_rle_in_graph, paste_in_graph
from mrcnn_tf.serving import detection_status

AddMasks = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]

PASTED, COUNTS = "detection_masks_reframed", "detection_mask_counts"
_THRESHOLD = 0.5  # probability from which a pixel belongs to the object, as in `predict`
_PARALLEL_MASKS = 4  # each takes some bytes for every pixel of its box


def build(kind: str, convention: str) -> AddMasks:
    """Return the function that adds masks to an answer.

    Args:
      kind: a key of `KINDS`.
      convention: see `ops/paste.py`.

    Returns:
      A function from `each_canvas.answer`'s outputs to one more output; it raises ValueError if
      they have no masks.

    Raises:
      ValueError: unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"masks to add: {kind!r} is not one of {sorted(KINDS)}")

    def add(answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if "detection_masks" not in answer:
            raise ValueError(f"this network has no masks, so {kind} masks cannot be added")
        with tf.device("CPU:0"):
            return KINDS[kind](answer, convention)

    return add


def _run_lengths(answer: dict[str, tf.Tensor], convention: str) -> dict[str, tf.Tensor]:
    """Return every mask as COCO's compressed run lengths.

    Returns:
      detection_mask_counts: string [B, D], the "counts" of COCO's RLE; its "size" is `image_size`.
        "" behind the last detection. ASCII, so that it can stand in JSON.
    """
    index, *detections = _detections(answer)

    def encode(detection: tuple[tf.Tensor, ...]) -> tf.Tensor:
        mask, box, size_hw = detection
        columns, top, left = paste_in_graph.paste_transposed(mask, box, size_hw, convention)
        return coco_rle_in_graph.crop_to_counts(columns >= _THRESHOLD, top, left, size_hw)

    counts = _each(encode, detections, tf.TensorSpec([], tf.string))
    nothing = tf.fill(tf.shape(answer["detection_scores"]), "")
    return {COUNTS: tf.tensor_scatter_nd_update(nothing, index, counts)}


def _pasted(answer: dict[str, tf.Tensor], convention: str) -> dict[str, tf.Tensor]:
    """Return every mask in an image of its own.

    Returns:
      detection_masks_reframed: uint8 [B, N, height, width], 1 inside, 0 elsewhere. N is the most
        detections that an image of the request has; height and width are those of the largest
        image (of its tallest and its widest), each mask lies at the top left.
    """
    index, *detections = _detections(answer)
    is_done = answer[detection_status.OUTPUT] == detection_status.DONE
    sizes_hw = tf.where(is_done[:, tf.newaxis], answer["image_size"], 0)
    room_hw = tf.reduce_max(tf.pad(sizes_hw, [[0, 1], [0, 0]]), axis=0)
    most = tf.reduce_max(tf.pad(tf.cast(answer["num_detections"], tf.int32), [[0, 1]]))
    shape = tf.concat([tf.shape(sizes_hw)[:1], [most], room_hw], axis=0)

    def paste(detection: tuple[tf.Tensor, ...]) -> tf.Tensor:
        mask, box, size_hw = detection
        columns, top, left = paste_in_graph.paste_transposed(mask, box, size_hw, convention)
        crop = tf.cast(tf.transpose(columns >= _THRESHOLD), tf.uint8)  # [h, w]
        bottom, right = tf.unstack(room_hw - tf.shape(crop) - tf.stack([top, left]))
        return tf.pad(crop, [[top, bottom], [left, right]])

    def paste_all() -> tf.Tensor:
        masks = _each(paste, detections, tf.TensorSpec([None, None], tf.uint8))
        return tf.scatter_nd(tf.cast(index, tf.int32), masks, shape)

    nothing_found = tf.size(index) == 0
    masks = tf.cond(nothing_found, lambda: tf.zeros(shape, tf.uint8), paste_all)
    return {PASTED: tf.ensure_shape(masks, [None, None, None, None])}


# {name of the flag's value: (answer, convention) -> one output}
KINDS = {"pasted": _pasted, "run_lengths": _run_lengths}


def _detections(answer: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """List all detections of a request.

    Returns:
      index: int64 [V, (image, row)].
      masks: float32 [V, M, M].
      boxes: float32 [V, (y1, x1, y2, x2)], pixels of their image.
      sizes_hw: int32 [V, (height, width)], of their image.
    """
    scores = answer["detection_scores"]
    rows = tf.range(tf.shape(scores)[1], dtype=tf.float32)
    index = tf.where(rows < answer["num_detections"][:, tf.newaxis])
    sizes_hw = tf.gather(answer["image_size"], index[:, 0])
    boxes = tf.gather_nd(answer["detection_boxes"], index)
    boxes *= tf.tile(tf.cast(sizes_hw, tf.float32), [1, 2])
    return index, tf.gather_nd(answer["detection_masks"], index), boxes, sizes_hw


def _each(
    function: Callable[[tuple[tf.Tensor, ...]], tf.Tensor],
    detections: list[tf.Tensor],
    output: tf.TensorSpec,
) -> tf.Tensor:
    """Apply a function to the mask, box and image size of each detection."""
    return tf.map_fn(
        function,
        tuple(detections),
        parallel_iterations=1 if tf.executing_eagerly() else _PARALLEL_MASKS,
        fn_output_signature=output,
    )
