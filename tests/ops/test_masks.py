"""Mask targets against dense bitmaps sampled by loops, and on masks known exactly."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import masks as mask_ops
from tests.ops.test_points import bilinear_twin


def pack(images, num_bytes=400):
    """Pack lists of (crop, frame) per image into the arena and its tables, padded to one size."""
    num_objects = max(len(objects) for objects in images)
    bits = np.zeros((len(images), num_bytes), np.uint8)
    offsets = np.zeros((len(images), num_objects), np.int32)
    sizes = np.zeros((len(images), num_objects, 2), np.int32)
    frames = np.zeros((len(images), num_objects, 4), np.float32)
    for b, objects in enumerate(images):
        pixels = []
        for k, (crop, frame) in enumerate(objects):
            offsets[b, k], sizes[b, k], frames[b, k] = len(pixels), np.shape(crop), frame
            pixels += np.asarray(crop, bool).ravel().tolist()
        packed = np.packbits(np.array(pixels, bool))
        bits[b, : len(packed)] = packed
    return bits, offsets, sizes, frames


def bitmap_twin(crop, frame, height, width):
    """The object's mask at the network input, pixel by pixel."""
    y1, x1, y2, x2 = (float(v) for v in frame)
    full = np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            row = int(np.floor((i + 0.5 - y1) * crop.shape[0] / (y2 - y1)))
            col = int(np.floor((j + 0.5 - x1) * crop.shape[1] / (x2 - x1)))
            if 0 <= row < crop.shape[0] and 0 <= col < crop.shape[1]:
                full[i, j] = crop[row, col]
    return full


def axis_matrix(start, end, size, side, ratio, aligned):
    """RoIAlign along one axis as a matrix [side, size], sample by sample; ratio 0 is adaptive."""
    shift = 0.5 if aligned else 0.0
    length = end - start if aligned else max(end - start, 1.0)
    ratio = ratio or int(np.ceil(length / side))
    matrix = np.zeros((side, size))
    for k in range(side * ratio):
        position = start - shift + (k + 0.5) * length / (side * ratio)
        if -1.0 <= position <= size:
            position = min(max(position, 0.0), size - 1.0)
            low = int(position)
            matrix[k // ratio, low] += (1 - (position - low)) / ratio
            matrix[k // ratio, min(low + 1, size - 1)] += (position - low) / ratio
    return matrix


def coverage_twin(full, box, side, ratio, aligned):
    y1, x1, y2, x2 = (float(v) for v in box)
    rows = axis_matrix(y1, y2, full.shape[0], side, ratio, aligned)
    cols = axis_matrix(x1, x2, full.shape[1], side, ratio, aligned)
    return rows @ full @ cols.T


def random_case(seed=0):
    """Two images of 40 x 56 and 33 x 48 on a canvas of 40 x 56; the first frame is mirrored."""
    rng = np.random.default_rng(seed)
    images = [
        [
            (rng.random((9, 13)) < 0.6, (3.3, 50.1, 31.7, 4.4)),
            (rng.random((20, 6)) < 0.5, (0.0, 0.0, 40.0, 56.0)),
            (np.ones((3, 3)), (35.2, 40.3, 40.0, 56.0)),
        ],
        [(rng.random((30, 30)) < 0.7, (5.5, 8.5, 20.5, 23.5))],
    ]
    image_size_hw = np.array([[40, 56], [33, 48]], np.float32)
    ends = np.sort(rng.uniform(-4, 50, (2, 9, 2, 2)), axis=2).reshape(2, 9, 4)
    special = [[0, 0, 0, 0], [10, 10, 10, 30], [20, 20, 10, 10], [90, 90, 99, 99], [0, 0, 40, 56]]
    special.append([34, 40, 40, 56])
    rois = np.concatenate([np.tile(special, (2, 1, 1)), ends], axis=1).astype(np.float32)
    gt_index = np.stack([rng.integers(0, 3, 15), np.zeros(15)]).astype(np.int32)
    return images, image_size_hw, rois, gt_index


def test_lookup_by_hand():
    crop = np.array([[1, 0, 1], [0, 1, 1]], bool)
    filler = (np.zeros((1, 5)), (0, 0, 1, 5))  # so that the crop does not begin at a byte
    arena = pack([[filler, (crop, (2, 3, 4, 6)), (crop, (2, 6, 4, 3)), (crop, (0, 0, 4, 6))]])
    full = mask_ops.full_masks(*arena, 5, 7).numpy()[0]
    want = np.zeros((5, 7), bool)
    want[2:4, 3:6] = crop
    np.testing.assert_array_equal(full[1], want)
    want[2:4, 3:6] = crop[:, ::-1]  # x1 > x2
    np.testing.assert_array_equal(full[2], want)
    want[:] = False
    want[:4, :6] = np.kron(crop, np.ones((2, 2), bool))  # twice as large
    np.testing.assert_array_equal(full[3], want)
    value = mask_ops.arena_lookup(
        *(x[:, 1:2] if x.ndim > 1 and x.shape[1] == 4 else x for x in arena),
        np.array([[[-7, 2, 3, 99]]], np.int32),
        np.array([[[5, 3]]], np.int32),
    )
    assert value.numpy().tolist() == [[[[0, 0], [1, 1], [1, 0], [0, 0]]]]


def test_full_masks_equal_the_twin_and_padding_is_empty():
    images, _, _, _ = random_case()
    full = mask_ops.full_masks(*pack(images), 40, 56).numpy()
    assert full.shape == (2, 3, 40, 56)
    for b, objects in enumerate(images):
        for k, (crop, frame) in enumerate(objects):
            want = bitmap_twin(crop, np.float32(frame), 40, 56)
            np.testing.assert_array_equal(full[b, k], want)
            assert want.any()
    assert not full[1, 1:].any()


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("convention", ["detectron2", "torchvision"])
def test_targets_equal_the_twin(convention, ratio):
    images, image_size_hw, rois, gt_index = random_case()
    targets = mask_ops.mask_targets(
        *pack(images), image_size_hw, rois, gt_index, 7, convention, ratio
    ).numpy()
    assert targets.dtype == np.float32
    for b in range(2):
        height, width = image_size_hw[b].astype(int)
        for r in range(rois.shape[1]):
            crop, frame = images[b][gt_index[b, r]]
            full = bitmap_twin(np.asarray(crop), np.float32(frame), height, width)
            want = coverage_twin(full, rois[b, r], 7, ratio, convention == "detectron2")
            if convention == "torchvision":
                np.testing.assert_allclose(targets[b, r], want, atol=2e-5)
            else:
                decided = np.abs(want - 0.5) > 2e-5
                got = targets[b, r]
                np.testing.assert_array_equal(got[decided], (want >= 0.5)[decided])
                # Exact halves are covered, as in Detectron2.
                assert (got[np.abs(want - 0.5) < 1e-6] == 1).all()


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_targets_by_hand(ratio):
    # A solid object on rows 8..24, columns 16..48 of a 40 x 56 image.
    arena = pack([[(np.ones((4, 8)), (8, 16, 24, 48))]])

    def target(roi, convention="detectron2"):
        roi = np.array([[roi]], np.float32)
        size = np.array([[40, 56]], np.float32)
        index = np.zeros((1, 1), np.int32)
        args = (*arena, size, roi, index, 4, convention, ratio)
        return mask_ops.mask_targets(*args).numpy()[0, 0]

    np.testing.assert_array_equal(target([8, 16, 24, 48]), np.ones((4, 4)))  # the object's own box
    np.testing.assert_array_equal(target([8, 0, 24, 32]), [[0, 0, 1, 1]] * 4)
    np.testing.assert_array_equal(target([24, 16, 40, 48]), np.zeros((4, 4)))  # just below
    np.testing.assert_array_equal(target([0, 0, 0, 0]), np.zeros((4, 4)))  # padding
    # No area, inside: adaptive sampling places no samples there.
    np.testing.assert_array_equal(target([12, 20, 12, 20]), np.full((4, 4), min(ratio, 1)))
    # Whole-number centres, cells of 2 rows: the last one samples row 23, or 22.5 and 23.5 (adaptive
    # sampling too), or 22.3, 23 and 23.7. Row 23 is the object's last.
    fraction = target([16, 20, 24, 44], "torchvision")
    last = {0: 0.75, 1: 1.0, 2: 0.75, 3: 7 / 9}[ratio]
    np.testing.assert_allclose(fraction, [[1.0] * 4] * 3 + [[last] * 4], rtol=1e-5)


@pytest.mark.parametrize(("ratio", "grows"), [(1, False), (2, True), (3, False)])
def test_even_ratios_dilate_large_binary_targets(ratio, grows):
    # The object ends at 0.4 of a cell of 32 pixels: less than half of the cell is covered.
    arena = pack([[(np.ones((1, 1)), (0, 0, 128, 64 + 0.4 * 32))]])
    targets = mask_ops.mask_targets(
        *arena,
        np.array([[128, 128]], np.float32),
        np.array([[[0, 0, 128, 128]]], np.float32),
        np.zeros((1, 1), np.int32),
        4,
        "detectron2",
        ratio,
    )
    assert targets.numpy()[0, 0, 1].tolist() == [1, 1, float(grows), 0]


def test_adaptive_targets_of_many_samples():
    """A RoI of 300 x 700 pixels: 43 x 100 samples per cell, in more than one round of items."""
    rng = np.random.default_rng(2)
    crop = rng.random((25, 60)) < 0.5
    arena = pack([[(crop, (4.0, 10.5, 300.0, 690.5))]])
    size = np.array([[304, 704]], np.float32)
    rois = np.array([[[1.5, 2.0, 301.5, 702.0], [0.0, 340.0, 303.0, 343.0]]], np.float32)
    index = np.zeros((1, 2), np.int32)
    full = mask_ops.full_masks(*arena, 304, 704).numpy()[0, 0]
    for convention in ("torchvision", "detectron2"):
        targets = mask_ops.mask_targets(*arena, size, rois, index, 7, convention, 0).numpy()
        for r in range(2):
            want = coverage_twin(full, rois[0, r], 7, 0, convention == "detectron2")
            if convention == "torchvision":
                np.testing.assert_allclose(targets[0, r], want, atol=1e-5)
            else:
                decided = np.abs(want - 0.5) > 1e-4
                assert decided.mean() > 0.9
                np.testing.assert_array_equal(targets[0, r][decided], (want >= 0.5)[decided])


def test_mirrored_images_have_mirrored_targets():
    images, image_size_hw, rois, gt_index = random_case()
    width = image_size_hw[:, None, None, 1]
    bits, offsets, sizes, frames = pack(images)
    mirrored_frames = np.concatenate([frames[..., :2], frames[..., 2:]], axis=-1)
    mirrored_frames[..., 1::2] = width - frames[..., 1::2]
    mirrored_rois = np.stack(
        [rois[..., 0], width[..., 0] - rois[..., 3], rois[..., 2], width[..., 0] - rois[..., 1]], -1
    )

    def targets(frames, rois):
        args = (bits, offsets, sizes, frames, image_size_hw, rois, gt_index, 7, "detectron2", 3)
        return mask_ops.mask_targets(*args).numpy()

    got, want = targets(mirrored_frames, mirrored_rois), targets(frames, rois)[..., ::-1]
    assert np.mean(got != want) < 0.003  # pixel centres that fall exactly between two mask pixels


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(("convention", "ratio"), [("detectron2", 3), ("torchvision", 0)])
def test_graph_and_xla_with_unknown_sizes_equal_eager(convention, ratio, jit):
    images, image_size_hw, rois, gt_index = random_case()
    args = (*pack(images), image_size_hw, rois, gt_index)
    signature = [
        tf.TensorSpec(
            [None] * (a.ndim - 1) + [a.shape[-1] if a.shape[-1] in (2, 4) else None], a.dtype
        )
        for a in args
    ]
    function = tf.function(
        lambda *a: (
            mask_ops.mask_targets(*a, 7, convention, ratio),
            mask_ops.full_masks(*a[:4], 40, 56),
        ),
        input_signature=signature,
        jit_compile=jit,
    )
    targets, full = function(*args)
    want = mask_ops.mask_targets(*args, 7, convention, ratio)
    np.testing.assert_allclose(targets, want, atol=1e-5)
    np.testing.assert_array_equal(full, mask_ops.full_masks(*args[:4], 40, 56))


@pytest.mark.parametrize("ratio", [0, 2])
def test_no_rois_and_no_gradient(ratio):
    images, image_size_hw, rois, gt_index = random_case()
    args = (*pack(images), image_size_hw)
    none = mask_ops.mask_targets(*args, rois[:, :0], gt_index[:, :0], 28, "detectron2", ratio)
    assert none.shape == (2, 0, 28, 28)
    boxes = tf.constant(rois)
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        targets = mask_ops.mask_targets(*args, boxes, gt_index, 7, "torchvision", ratio)
    assert tape.gradient(targets, boxes) is None


def test_unknown_convention_is_refused():
    images, image_size_hw, rois, gt_index = random_case()
    with pytest.raises(ValueError, match=r"'caffe'.*detectron2.*torchvision"):
        mask_ops.mask_targets(*pack(images), image_size_hw, rois, gt_index, 7, "caffe", 3)


def test_masks_at_points_are_those_of_the_twin():
    images, image_size_hw, _, gt_index = random_case()
    rng = np.random.default_rng(2)
    points = rng.uniform(-3, 60, (2, 15, 20, 2)).astype(np.float32)
    points[:, 0, 0] = np.nan, 1e30
    found = mask_ops.masks_at_points(*pack(images), image_size_hw, points, gt_index).numpy()
    assert found.shape == (2, 15, 20)
    between = 0
    for b in range(2):
        height, width = image_size_hw[b].astype(int)
        for r in range(15):
            crop, frame = images[b][gt_index[b, r]]
            full = bitmap_twin(np.asarray(crop), np.float32(frame), height, width)
            for p, (y, x) in enumerate(points[b, r]):
                want = bilinear_twin(full, y, x) if np.isfinite(y) else 0.0
                assert abs(found[b, r, p] - want) < 1e-4
                between += 0.01 < want < 0.99
    assert between > 50


def test_masks_at_points_by_hand():
    # A solid object on rows 2..4, columns 3..6 of a 6 x 6 image, and none.
    arena = pack([[(np.ones((4, 6)), (2, 3, 4, 6)), (np.zeros((0, 0)), (0, 0, 0, 0))]])
    size = np.array([[6, 6]], np.float32)
    points = [[3, 4.5], [2, 4.5], [1.75, 4.5], [2, 3], [1.5, 4.5], [3, 6], [3, 5.5]]
    points = np.array([[points, points]], np.float32)
    found = mask_ops.masks_at_points(*arena, size, points, np.array([[0, 1]], np.int32))
    np.testing.assert_allclose(found[0, 0], [1, 0.5, 0.25, 0.25, 0, 0.5, 1], atol=1e-6)
    np.testing.assert_array_equal(found[0, 1], np.zeros(7))
