"""Keypoints to cells and back, against twins that take one pixel after the other."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import heatmaps


def twin_cell(point, roi, size):
    """Detectron2's rule: (row, column), None outside."""
    place = []
    for axis in (0, 1):
        start, end = roi[axis], roi[2 + axis]
        where = math.floor((point[axis] - start) * size / (end - start))
        place.append(size - 1 if point[axis] == end else where)
    return tuple(place) if all(0 <= p < size for p in place) else None


def test_sizes_need_not_be_static():
    """A batch that may be the last one, in part, on one of several canvases."""
    shapes = ([None, None, 5, 2], [None, None, 5], [None, None, 4])
    types = (tf.float32, tf.bool, tf.float32)
    specs = [tf.TensorSpec(shape, kind) for shape, kind in zip(shapes, types, strict=True)]
    traced = tf.function(lambda *given: heatmaps.cells(*given, 8), input_signature=specs)
    rois = tf.tile([[[0.0, 0.0, 8.0, 8.0]]], [2, 3, 1])  # a pixel is a cell
    cells, valid = traced(tf.fill([2, 3, 5, 2], 4.0), tf.fill([2, 3, 5], True), rois)
    np.testing.assert_array_equal(cells, np.full([2, 3, 5], 4 * 8 + 4))
    assert valid.numpy().all()


@pytest.mark.parametrize(
    ("point", "cell"),
    [
        ((10.0, 20.0), (0, 0)),  # on the upper left corner
        ((17.99, 20.0), (7, 0)),
        ((18.0, 35.9), (7, 7)),  # on the lower edge
        ((12.5, 36.0), (2, 7)),  # on the right edge
        ((9.99, 25.0), None),
        ((18.01, 25.0), None),
        ((12.0, 36.01), None),
        ((1e12, 25.0), None),
    ],
)
def test_cells_by_hand(point, cell):
    roi = (10.0, 20.0, 18.0, 36.0)
    found, valid = heatmaps.cells(
        tf.constant([[[point]]]), tf.constant([[[True]]]), tf.constant([[roi]]), 8
    )
    assert twin_cell(point, roi, 8) == cell
    assert valid.numpy().tolist() == [[[cell is not None]]]
    assert found.numpy().tolist() == [[[cell[0] * 8 + cell[1] if cell else 0]]]


def test_cells_are_those_of_a_twin_and_invalid_ones_stay_so():
    rng = np.random.default_rng(0)
    rois = np.sort(rng.uniform(0, 60, [2, 5, 2, 2]), axis=2).reshape(2, 5, 4).astype(np.float32)
    extent = (rois[..., 2:] - rois[..., :2])[:, :, None]  # [2, 5, 1, 2]
    points = np.float32(rois[:, :, None, :2] + rng.uniform(-0.2, 1.2, [2, 5, 4, 2]) * extent)
    given = rng.random([2, 5, 4]) < 0.7
    cells, valid = heatmaps.cells(tf.constant(points), tf.constant(given), tf.constant(rois), 56)
    count = 0
    for place in np.ndindex(2, 5, 4):
        want = twin_cell(points[place], rois[place[:2]], 56) if given[place] else None
        assert bool(valid[place]) == (want is not None)
        if want:
            assert int(cells[place]) == want[0] * 56 + want[1]
            count += 1
    assert 8 < count < given.sum()
    _, none = heatmaps.cells(points, tf.ones([2, 5, 4], tf.bool), tf.zeros([2, 5, 4]), 56)
    assert not np.any(none)  # a RoI without area


def test_upsampling_by_hand_and_as_resizing():
    row = tf.constant([[[[0.0], [4.0], [8.0]]] * 3])
    np.testing.assert_allclose(heatmaps.upsample_twice(row)[0, 2, :, 0], [0, 1, 3, 5, 7, 8])
    maps = tf.random.stateless_normal([2, 5, 5, 3], [1, 2])
    doubled = heatmaps.upsample_twice(maps)
    np.testing.assert_allclose(doubled, tf.image.resize(maps, [10, 10]), atol=1e-5)


def twin_cubic(values, place):
    """Keys' cubic convolution of a row [S] at a place in cells, edge cells extended."""
    total, left = 0.0, math.floor(place)
    for source in range(left - 1, left + 3):
        d = abs(place - source)
        if d <= 1:
            weight = 1.25 * d**3 - 2.25 * d**2 + 1
        else:
            weight = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
        total += weight * values[min(max(source, 0), len(values) - 1)]
    return total


def twin_decode(logits, box):
    """One map [S, S] in one box: (y, x, score)."""
    size = len(logits)
    extent = [max(box[2 + axis] - box[axis], 1.0) for axis in (0, 1)]
    height, width = (math.ceil(side) for side in extent)
    best = (-math.inf, 0, 0)
    for i in range(height):
        row = [twin_cubic(logits[:, c], (i + 0.5) * size / height - 0.5) for c in range(size)]
        for j in range(width):
            best = max(best, (twin_cubic(row, (j + 0.5) * size / width - 0.5), -i, -j))
    score = min(math.exp(best[0]) / np.exp(np.float64(logits)).sum(), 1.0)
    y = box[0] + (-best[1] + 0.5) * extent[0] / height
    x = box[1] + (-best[2] + 0.5) * extent[1] / width
    return y, x, score


def test_a_single_peak_by_hand():
    logits = np.zeros([1, 1, 1, 56, 56], np.float32)
    logits[0, 0, 0, 30, 7] = 10.0
    box = tf.constant([[[100.0, 200.0, 156.0, 256.0]]])  # a cell is a pixel
    ((found,),) = heatmaps.decode(tf.constant(logits), box, tf.constant([[True]]))[0]
    score = math.exp(10) / (math.exp(10) + 56 * 56 - 1)
    np.testing.assert_allclose(found, [130.5, 207.5, score], rtol=1e-5)


BOXES = [
    (3.0, 4.0, 19.5, 12.25),  # sides of 16.5 and 8.25: 17 and 9 pixels
    (0.0, 0.0, 0.4, 3.0),  # less than a pixel: 1
    (10.0, 20.0, 80.0, 150.5),  # tiles of 64: two by three
    (5.0, 5.0, 69.0, 69.0),  # exactly one
]


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_decoding_is_that_of_a_slow_twin(compiled):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, [2, 5, 2, 12, 12]).astype(np.float32)
    boxes = np.array([[*BOXES, (0, 0, 9, 9)], [*BOXES[::-1], (0, 0, 9, 9)]], np.float32)
    valid = np.array([[True, True, True, True, False], [True, False, False, True, False]])
    decode = tf.function(heatmaps.decode, jit_compile=True) if compiled else heatmaps.decode
    found = decode(*map(tf.constant, (logits, boxes, valid))).numpy()
    for b, r, k in np.ndindex(2, 5, 2):
        want = twin_decode(logits[b, r, k], boxes[b, r].tolist()) if valid[b, r] else (0, 0, 0)
        np.testing.assert_allclose(found[b, r, k], want, rtol=1e-4, atol=1e-4)
    nothing = decode(*map(tf.constant, (logits, boxes, np.zeros_like(valid))))
    assert not np.any(nothing)


def test_a_target_comes_back():
    """A map that is certain of a keypoint's cell gives it back to within a cell."""
    rng = np.random.default_rng(2)
    rois = np.array([[[10, 20, 90, 60], [0, 0, 200, 120]]], np.float32)
    extent = (rois[..., 2:] - rois[..., :2])[:, :, None]  # [1, 2, 1, 2]
    points = np.float32(rois[:, :, None, :2] + rng.random([1, 2, 3, 2]) * extent)
    cells, valid = heatmaps.cells(points, tf.ones([1, 2, 3], tf.bool), tf.constant(rois), 56)
    assert np.all(valid)
    logits = 20.0 * tf.reshape(tf.one_hot(cells, 56 * 56), [1, 2, 3, 56, 56])
    found = heatmaps.decode(logits, tf.constant(rois), tf.constant([[True, True]]))
    assert np.all(np.abs(found[..., :2] - points) <= extent / 56 / 2 + 0.5 + 1e-3)
