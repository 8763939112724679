"""A batch of no images and images without boxes, through every operation: nothing, no error.

What comes out for no images is checked by its shape; an image without boxes gets padding only.
"""

import pytest
import tensorflow as tf

from mrcnn_tf.modeling import detections, proposals
from mrcnn_tf.ops import implementation, masks, matching, nms, roi_align, sampling, soft_nms


def pooled(sampling_ratio):
    def run(b, n):
        features = {level: tf.ones([b, 64 >> level, 64 >> level, 3]) for level in (2, 3)}
        with tf.GradientTape() as tape:
            tape.watch(features)
            boxes, levels = tf.zeros([b, n, 4]), tf.fill([b, n], 2)
            cells = roi_align.roi_align(features, boxes, levels, 3, sampling_ratio, False)
            loss = tf.reduce_sum(cells)
        return cells, *tape.gradient(loss, [features[2], features[3]])

    return run, ([0, 5, 3, 3, 3], [0, 16, 16, 3], [0, 8, 8, 3])


def kept(groups):
    def run(b, n):
        valid, group = tf.ones([b, n], tf.bool), tf.zeros([b, n], tf.int32) if groups else None
        return nms.nms(tf.zeros([b, n, 4]), tf.zeros([b, n]), valid, 0.5, 4, group)

    return run, ([0, 4], [0, 4])


def softly_kept(b, n):
    valid, groups = tf.ones([b, n], tf.bool), tf.zeros([b, n], tf.int32)
    return soft_nms.soft_nms(
        tf.zeros([b, n, 4]), tf.zeros([b, n]), valid, groups, 0.5, 0.1, 4
    )  # fmt: skip


def proposed(b, n):
    found = proposals.generate_proposals(
        {2: tf.zeros([b, n]), 3: tf.zeros([b, 1])},
        {2: tf.zeros([b, n, 4]), 3: tf.zeros([b, 1, 4])},
        {2: tf.zeros([n, 4]), 3: tf.zeros([1, 4])},
        tf.zeros([b, 2]),
        pre_nms_top_k=8,
        post_nms_top_k=6,
        nms_iou=0.5,
        min_box_size=0.0,
    )
    return found.boxes, found.valid


def detected(soft_nms_sigma):
    def run(b, n):
        found = detections.select_detections(
            tf.fill([b, n, 3], 1 / 3),
            tf.zeros([b, n, 2, 4]),
            tf.zeros([b, n, 4]),
            tf.ones([b, n], tf.bool),
            tf.zeros([b, 2]),
            regression_weights=(1.0, 1.0, 1.0, 1.0),
            score_threshold=0.05,
            nms_iou=0.5,
            min_box_size=0.0,
            soft_nms_sigma=soft_nms_sigma,
            max_detections=7,
        )
        return found[:4]

    return run, ([0, 7, 4], [0, 7], [0, 7], [0, 7])


def arena(b, n):
    """Bits, and offsets, sizes and frames of `n` objects."""
    bits, offsets = tf.zeros([b, 9], tf.uint8), tf.zeros([b, n], tf.int32)
    return bits, offsets, tf.zeros([b, n, 2], tf.int32), tf.zeros([b, n, 4])


def targets(sampling_ratio):
    def run(b, n):
        index, size = tf.zeros([b, n], tf.int32), tf.zeros([b, 2])
        return masks.mask_targets(
            *arena(b, 2), size, tf.zeros([b, n, 4]), index, 6, "detectron2", sampling_ratio
        )  # fmt: skip

    return run, ([0, 5, 6, 6],)


def looked_up(b, n):
    rows, cols = tf.zeros([b, n, 2], tf.int32), tf.zeros([b, n, 3], tf.int32)
    return masks.arena_lookup(*arena(b, n), rows, cols)


def drawn(b, n):
    seeds = sampling.image_seeds(1, 2, tf.zeros([b], tf.int32), stream=0)
    positive = tf.ones([b, n], tf.bool)
    return tuple(sampling.sample(positive, ~positive, 6, 0.5, seeds))


def matched(b, n):
    return tuple(matching.match(tf.zeros([b, n, 2]), tf.ones([b, 2], tf.bool), 0.7, 0.3, True))


# Of b images with n boxes each: the operation, and the shapes of its results for b = 0, n = 5.
OPERATIONS = {
    "roi_align": pooled(2),
    "roi_align adaptive": pooled(0),
    "nms": kept(False),
    "nms of groups": kept(True),
    "soft_nms": (softly_kept, ([0, 4],) * 3),
    "generate_proposals": (proposed, ([0, 6, 4], [0, 6])),
    "select_detections": detected(0.0),
    "select_detections, soft": detected(0.5),
    "mask_targets": targets(2),
    "mask_targets adaptive": targets(0),
    "arena_lookup": (looked_up, ([0, 5, 2, 3],)),
    "full_masks": (lambda b, n: masks.full_masks(*arena(b, n), 4, 6), ([0, 5, 4, 6],)),
    "sample": (drawn, ([0, 6],) * 3),
    "match": (matched, ([0, 5],) * 4),
    "assign_levels": (lambda b, n: roi_align.assign_levels(tf.zeros([b, n, 4]), 2, 5), ([0, 5],)),
}


def run_as(mode, operation, b, n):
    """Eager with either implementation; traced for unknown or for these very sizes."""
    if mode in ("for_accelerators", "for_cpus"):
        with implementation.force(accelerators=mode == "for_accelerators"):
            return operation(b, n)
    jit_compile = None if mode == "graph" else True
    if mode == "xla, known sizes":
        return tf.function(lambda: operation(b, n), jit_compile=jit_compile, autograph=False)()
    sizes = [tf.TensorSpec([], tf.int32)] * 2
    return tf.function(operation, sizes, jit_compile=jit_compile, autograph=False)(b, n)


def check(mode, name, b, n):
    operation, shapes = OPERATIONS[name]
    results = tf.nest.flatten(run_as(mode, operation, b, n))
    for result, shape in zip(results, shapes, strict=True):
        assert result.shape.as_list() == [b, *(n if size == 5 else size for size in shape[1:])]
        assert not result.numpy().any()


@pytest.mark.parametrize("mode", ["for_accelerators", "for_cpus", "graph", "xla"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_images(name, mode):
    check(mode, name, 0, 5)


@pytest.mark.parametrize("mode", ["for_accelerators", "for_cpus", "graph", "xla, known sizes"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_boxes(name, mode):
    check(mode, name, 2, 0)
