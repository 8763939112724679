"""Run lengths against hand-worked cases and pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.data import rle


@pytest.mark.parametrize(
    ("pixels", "runs"),
    [
        ([0, 0, 1, 1, 1, 0], [2, 3, 1]),
        ([1, 0], [0, 1, 1]),
        ([1, 1], [0, 2]),
        ([0], [1]),
        ([], []),
    ],
)
def test_run_lengths_by_hand(pixels, runs):
    flat = np.array(pixels, bool)
    np.testing.assert_array_equal(rle.run_lengths(flat), np.array(runs, np.int64))
    np.testing.assert_array_equal(rle.pixels_from_runs(np.array(runs, np.int64)), flat)


def test_crop_by_hand():
    mask = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        bool,
    )
    crop = rle.crop_from_column_runs(rle.run_lengths(mask.ravel(order="F")), 4)
    assert crop.crop == (1, 1, 2, 3)
    # Rows: .## then ##. = outside 1, inside 4, outside 1.
    assert crop.runs.tolist() == [1, 4, 1]


def _random_masks(count):
    rng = np.random.default_rng(3)
    for _ in range(count):
        height, width = rng.integers(1, 30, 2)
        mask = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.7, 0.98])
        y1, x1 = rng.integers(0, height), rng.integers(0, width)
        mask[:y1] = False  # so that crops do not always fill the image
        mask[:, :x1] = False
        yield mask
    yield np.ones((5, 7), bool)
    yield np.zeros((5, 7), bool)
    yield np.ones((1, 1), bool)


def test_strings_and_crops_agree_with_pycocotools():
    for mask in _random_masks(300):
        height, width = mask.shape
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        column_runs = rle.column_runs_from_string(encoded["counts"])
        np.testing.assert_array_equal(column_runs, rle.run_lengths(mask.ravel(order="F")))
        crop = rle.crop_from_column_runs(column_runs, height)
        np.testing.assert_array_equal(rle.crop_to_full_mask(crop, height, width), mask)
        y, x, crop_height, crop_width = crop.crop
        assert crop.runs.sum() == crop_height * crop_width
        if mask.any():
            rows, columns = np.nonzero(mask)
            assert (y, x) == (rows.min(), columns.min())
            assert (crop_height, crop_width) == (np.ptp(rows) + 1, np.ptp(columns) + 1)
            assert (crop.runs[1:] > 0).all()
        else:
            assert crop.crop == (0, 0, 0, 0)
            assert crop.runs.size == 0


def test_large_images_have_long_runs():
    mask = np.zeros((5000, 4000), np.uint8)
    mask[2000:4000, 3000:3999] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    column_runs = rle.column_runs_from_string(counts.decode())
    assert column_runs.sum() == mask.size
    crop = rle.crop_from_column_runs(column_runs, 5000)
    assert crop.crop == (2000, 3000, 2000, 999)
    assert crop.runs.tolist() == [0, 2000 * 999]


def test_runs_of_length_zero_do_not_matter():
    mask = rle.crop_from_column_runs(np.array([3, 0, 2, 1, 0, 2, 4]), 4)
    plain = rle.crop_from_column_runs(np.array([5, 3, 4]), 4)
    assert mask.crop == plain.crop
    assert mask.runs.tolist() == plain.runs.tolist()


@pytest.mark.parametrize("counts", ["\x01", "é€", "PPPP", b"\x80", "o" * 20 + "0"])
def test_strings_that_are_no_code_are_refused(counts):
    with pytest.raises(ValueError, match="compressed run-length code"):
        rle.column_runs_from_string(counts)
