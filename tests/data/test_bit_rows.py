"""bit_rows.py: masks as rows of bits, against masks as pixels."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import bit_rows


def _look_up(crop, frame, height, width):
    """The slow twin: the lookup formula of `schema.py`, pixel by pixel."""
    y1, x1, y2, x2 = frame
    full = np.zeros([height, width], bool)
    for i in range(height):
        for j in range(width):
            row = np.floor((i + 0.5 - y1) * crop.shape[0] / (y2 - y1))
            column = np.floor((j + 0.5 - x1) * crop.shape[1] / (x2 - x1))
            if 0 <= row < crop.shape[0] and 0 <= column < crop.shape[1]:
                full[i, j] = crop[int(row), int(column)]
    return full


def _from_window(rows, box, height, width):
    """Put a window's pixels onto an empty canvas; what it has beside the canvas must be empty."""
    full = np.zeros([height, width + 8], bool)
    y1, x1, y2, x2 = box
    full[y1:y2, x1 * 8 : x2 * 8] = np.unpackbits(rows, axis=1)
    assert not full[:, width:].any()
    return full[:, :width]


CASES = {
    "as stored": (2, 3, 9, 20),
    "enlarged, flipped": (1.5, 29.75, 19.25, 3.25),
    "shrunk": (4.0, 8.0, 6.5, 16.0),
    "over the edges": (-9.5, -4.25, 40.0, 50.0),
    "one column of a byte": (0.0, 15.0, 7.0, 16.0),
    "outside": (3.0, -20.0, 9.0, -3.0),
    "below": (30.0, 3.0, 60.0, 20.0),
    "between centres": (3.6, 3.0, 4.4, 20.0),
}


def test_windows_hold_what_the_lookup_formula_finds():
    """Several objects in one string of bits, so that crops begin anywhere in a byte."""
    height, width = 21, 30
    rng = np.random.default_rng(0)
    crops = [rng.random([7, 17]) < 0.6 for _ in CASES]
    frames = np.float32(list(CASES.values()))
    bits = tf.constant(np.packbits(np.concatenate([crop.reshape(-1) for crop in crops])))
    canvas = tf.constant([height, width])
    sizes = tf.constant([crop.shape for crop in crops])
    of = bit_rows.windows(sizes, tf.constant(frames), canvas)
    expected = [
        _look_up(crop, frame, height, width) for crop, frame in zip(crops, frames, strict=True)
    ]
    for number, (name, full) in enumerate(zip(CASES, expected, strict=True)):
        rows = bit_rows.look_up(bits, of, tf.constant(number))
        got = _from_window(rows.numpy(), of.boxes[number].numpy(), height, width)
        np.testing.assert_array_equal(got, full, err_msg=name)
        assert int(bit_rows.count(rows)) == full.sum()
        if full.any():
            ys, xs = np.nonzero(full)
            box = bit_rows.box_around(rows) + tf.tile(of.boxes[number][:2] * [1, 8], [2])
            np.testing.assert_array_equal(box, [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1])
    assert [full.any() for full in expected] == [True] * 5 + [False] * 3
    united = bit_rows.unite(of, bits, canvas)
    any_of_them = np.any(expected, axis=0)
    np.testing.assert_array_equal(np.unpackbits(united.numpy(), axis=1)[:, :width], any_of_them)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_boxes_of_any_bits(share):
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = rng.random([5, 24]) < share
        mask[rng.integers(5), rng.integers(24)] = True
        ys, xs = np.nonzero(mask)
        expected = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
        np.testing.assert_array_equal(
            bit_rows.box_around(tf.constant(np.packbits(mask, axis=1))), expected
        )


def test_nothing_is_nothing():
    canvas = tf.constant([8, 16])
    of = bit_rows.windows(tf.zeros([0, 2], tf.int32), tf.zeros([0, 4]), canvas)
    united = bit_rows.unite(of, tf.zeros([0], tf.uint8), canvas)
    np.testing.assert_array_equal(united, np.zeros([8, 2]))
