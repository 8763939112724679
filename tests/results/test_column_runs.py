"""Masks as runs, against NumPy's masks and pycocotools' run lengths."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.results import column_runs
from mrcnn_tf.results.column_runs import Rectangle


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def pixels(runs, height, width):
    mask = np.zeros((height, width), bool)
    for x, y1, y2 in zip(*runs, strict=True):
        assert not mask[y1:y2, x].any()
        mask[y1:y2, x] = True
    return mask


def random_masks(seed, count=40):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        height, width, block = (int(n) for n in rng.integers(1, [30, 30, 6]))
        coarse = rng.random((height // block + 1, width // block + 1)) < rng.random()
        yield np.kron(coarse, np.ones((block, block), bool))[:height, :width], rng


def test_by_hand():
    """A run that goes on in the next column is two."""
    mask = np.array([[0, 1, 1], [0, 1, 0], [1, 1, 0]], bool)
    runs = column_runs.from_rle(rle(mask), top=10, left=20)
    assert runs.x.tolist() == [20, 21, 22]
    assert runs.y1.tolist() == [12, 10, 10]
    assert runs.y2.tolist() == [13, 13, 11]
    assert runs.area == 5
    assert runs.bounds == Rectangle(10, 20, 13, 23)
    assert column_runs.of_box(np.array([1.5, -2.0, 3.1, 1.2]), Rectangle(0, 0, 9, 9)) == (
        pytest.approx([0, 1]), pytest.approx([1, 1]), pytest.approx([4, 4]),
    )  # fmt: skip


def test_there_and_back():
    for mask, _ in random_masks(0):
        runs = column_runs.from_rle(rle(mask))
        np.testing.assert_array_equal(pixels(runs, *mask.shape), mask)
        assert runs.area == mask.sum()
        assert runs.to_rle(*mask.shape) == rle(mask)


def test_clipped_and_shared():
    num_pixels = 0
    for mask, rng in random_masks(1):
        height, width = mask.shape
        other = np.roll(mask, (1, 2), (0, 1)) & (rng.random(mask.shape) < 0.8)
        runs, others = (column_runs.from_rle(rle(m)) for m in (mask, other))
        assert runs.shared_area(others) == others.shared_area(runs) == (mask & other).sum()
        y1, x1 = (int(rng.integers(0, n)) for n in mask.shape)
        window = Rectangle(y1, x1, int(rng.integers(y1, height + 1)), width)
        cut = np.zeros_like(mask)
        cut[window.y1 : window.y2, window.x1 : window.x2] = True
        np.testing.assert_array_equal(pixels(runs.clipped(window), height, width), mask & cut)
        num_pixels += int((mask & cut).sum())
    assert num_pixels > 200


def test_union():
    for mask, rng in random_masks(2):
        parts = [mask & (rng.random(mask.shape) < 0.6) for _ in range(3)]
        runs = [column_runs.from_rle(rle(part)) for part in parts]
        expected = rle(np.logical_or.reduce(parts))
        assert column_runs.union_to_rle(runs, *mask.shape) == expected


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_every_so_many(step):
    for mask, _ in random_masks(3):
        reduced = mask[::step, ::step]
        runs = column_runs.from_rle(rle(mask)).every(step)
        assert runs.to_rle(*reduced.shape) == rle(reduced)


def test_an_image_larger_than_32_bits_count():
    """70,000 x 70,000: its places do not fit in 32 bits."""
    square = np.ones((3, 2), bool)
    runs = column_runs.from_rle(rle(square), top=69_997, left=69_998)
    mask = runs.to_rle(70_000, 70_000)
    again = column_runs.from_rle(mask)
    assert [v.tolist() for v in again] == [[69_998, 69_999], [69_997] * 2, [70_000] * 2]
