"""Pasting against loops over pixels, pycocotools, and masks recorded from the two projects."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mrcnn_tf.ops import paste

BOTH = pytest.mark.parametrize("convention", ["pixel_centres", "torchvision"])


def sample(mask, y, x):
    """Bilinear value at (y, x), pixel centres at whole numbers, zeros around the mask."""
    value = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for col in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < mask.shape[0] and 0 <= col < mask.shape[1]:
                value += (1 - abs(y - row)) * (1 - abs(x - col)) * float(mask[row, col])
    return value


def pixel_centres_twin(mask, box, height, width):
    """Full image of probabilities, every pixel asked where its centre lies in the box."""
    y1, x1, y2, x2 = (float(v) for v in box)
    full = np.zeros((height, width))
    if y2 > y1 and x2 > x1:
        for i in range(height):
            for j in range(width):
                y = (i + 0.5 - y1) / (y2 - y1) * mask.shape[0] - 0.5
                x = (j + 0.5 - x1) / (x2 - x1) * mask.shape[1] - 0.5
                full[i, j] = sample(mask, y, x)
    return full


def torchvision_twin(mask, box, height, width):
    """Pad by 1, enlarge, truncate to whole pixels, resize pixel by pixel, copy what is inside."""
    side = mask.shape[0] + 2
    padded = np.pad(mask, 1)
    y1, x1, y2, x2 = (np.float32(v) for v in box)
    scale = np.float32(side / mask.shape[0])
    half = np.array([(y2 - y1) / 2, (x2 - x1) / 2], np.float32) * scale
    centre = np.array([(y1 + y2) / 2, (x1 + x2) / 2], np.float32)
    start, end = np.trunc(centre - half).astype(int), np.trunc(centre + half).astype(int)
    full = np.zeros((height, width))
    count = np.maximum(end - start + 1, 1)
    for row in range(max(start[0], 0), min(end[0] + 1, height)):
        for col in range(max(start[1], 0), min(end[1] + 1, width)):
            y = max((row - start[0] + 0.5) * side / count[0] - 0.5, 0)
            x = max((col - start[1] + 0.5) * side / count[1] - 0.5, 0)
            full[row, col] = sample(padded, min(y, side - 1), min(x, side - 1))
    return full


def to_full(pasted, height, width):
    full = np.zeros((height, width), np.float32)
    h, w = pasted.probs.shape
    full[pasted.top : pasted.top + h, pasted.left : pasted.left + w] = pasted.probs
    return full


# On an image of 30 x 40: inside, in fractions, one pixel, thinner than a pixel, over each border,
# around the whole image, huge.
BOXES = [
    (5, 6, 20, 30),
    (5.3, 6.8, 19.1, 30.4),
    (7, 9, 8, 10),
    (7.2, 9.4, 7.6, 30),
    (-10.5, 3, 12, 20),
    (4, -7.3, 12, 20),
    (20, 30, 44.4, 61.7),
    (-9, -9, 50, 60),
    (-3000, -4000, 2500, 3500),
]
OUTSIDE = [(-30, 2, -10, 9), (31.5, 2, 40, 9), (2, 60, 9, 70), (2, -40, 9, -20)]
WITHOUT_AREA = [(0, 0, 0, 0), (5, 5, 5, 20), (9, 9, 4, 4)]
NOT_FINITE = [(np.nan, 0, 9, 9), (0, 0, np.inf, 9), (0, -np.inf, 9, np.inf)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(
    ("convention", "twin"),
    [("pixel_centres", pixel_centres_twin), ("torchvision", torchvision_twin)],
)
def test_values_equal_the_twin(convention, twin, box):
    mask = np.random.default_rng(0).random((28, 28)).astype(np.float32)
    got = to_full(paste.paste_mask(mask, box, 30, 40, convention), 30, 40)
    want = twin(mask, box, 30, 40)
    tolerance = 2e-3 if max(box) > 1000 else 1e-4  # float32 positions in the mask
    if convention == "pixel_centres":
        # The fading rim of a coarse mask reaches further out than the crop, below one half.
        inside = got > 0
        assert want[~inside].max(initial=0) < 0.5
        np.testing.assert_allclose(
            got[inside], want[inside], atol=2e-3 if max(box) > 1000 else 1e-4
        )
    else:
        np.testing.assert_allclose(got, want, atol=tolerance)


def test_two_by_two_by_hand():
    mask = np.array([[1.0, 0.0], [1.0, 0.5]], np.float32)
    # A box of 4 x 4 pixels: each mask cell is 2 x 2 pixels, pixel centres at -0.25, 0.25, 0.75,
    # 1.25 in units of cells from the first cell's centre; the rim mixes in a quarter of zero.
    pasted = paste.paste_mask(mask, (2, 3, 6, 7), 10, 10, "pixel_centres")
    assert (pasted.top, pasted.left, pasted.probs.shape) == (1, 2, (6, 6))
    y = np.array([0.75, 1.0, 1.0, 0.75])  # how much of the first column each row sees
    np.testing.assert_allclose(pasted.probs[1:5, 1], 0.75 * y)
    np.testing.assert_allclose(pasted.probs[1:5, 2], [0.5625, 0.78125, 0.84375, 0.65625])
    rle = paste.paste_to_rle(mask, (2, 3, 6, 7), 10, 10)
    want = np.zeros((10, 10), bool)
    want[2:6, 3:5] = True
    want[4, 5] = True  # 0.25 * 1 + 0.75 * (0.75 * 0.5) = 0.53
    np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), want)


def test_solid_mask_covers_the_pixels_whose_centre_is_in_the_box():
    solid = np.ones((28, 28), np.float32)
    full = coco_mask.decode(paste.paste_to_rle(solid, (2.5, 3.51, 6.49, 7.5), 10, 10))
    rows, cols = np.nonzero(full.any(axis=1))[0], np.nonzero(full.any(axis=0))[0]
    # The centre 2.5 lies on the upper edge and counts; 3.5 and 6.5 lie just outside.
    assert (rows[0], rows[-1], cols[0], cols[-1]) == (2, 5, 4, 7)


@BOTH
@pytest.mark.parametrize("box", OUTSIDE + NOT_FINITE)
def test_boxes_outside_give_an_empty_mask(box, convention):
    solid = np.ones((28, 28), np.float32)
    rle = paste.paste_to_rle(solid, box, 30, 40, convention=convention)
    assert rle == coco_mask.encode(np.zeros((30, 40), np.uint8, order="F"))


@pytest.mark.parametrize("box", WITHOUT_AREA)
def test_boxes_without_area_give_an_empty_mask(box):
    solid = np.ones((28, 28), np.float32)
    assert paste.paste_mask(solid, box, 30, 40, "pixel_centres").probs.size == 0
    rle = paste.paste_to_rle(solid, box, 30, 40)
    assert coco_mask.area(rle) == 0


@BOTH
@pytest.mark.parametrize("box", BOXES)
def test_rle_is_what_pycocotools_makes_of_the_full_mask(box, convention):
    mask = np.random.default_rng(1).random((14, 14)).astype(np.float32)
    for probs in (mask, np.ones_like(mask)):
        full = to_full(paste.paste_mask(probs, box, 30, 40, convention), 30, 40) >= 0.5
        want = coco_mask.encode(np.asfortranarray(full, np.uint8))
        assert paste.paste_to_rle(probs, box, 30, 40, convention=convention) == want


@BOTH
@pytest.mark.parametrize("size", [(30, 40), (1, 1), (480, 3), (300, 400)])
def test_many_masks_at_once_are_each_what_one_is(size, convention, monkeypatch):
    """Of any sizes, in chunks of a few; and pycocotools' code of the pasted full image."""
    monkeypatch.setattr(paste, "_CHUNK_PIXELS", 20_000)
    rng = np.random.default_rng(4)
    height, width = size
    extent = np.exp(rng.uniform(-1, np.log(1.5 * max(size)), [50, 2]))
    corner = rng.uniform(-0.3, 1.1, [50, 2]) * size - extent / 3
    boxes = np.concatenate([corner, corner + extent], axis=1)
    boxes[::3] = np.round(boxes[::3])
    boxes = np.concatenate([boxes, WITHOUT_AREA, OUTSIDE, NOT_FINITE])
    masks = rng.random([len(boxes), 14, 14]).astype(np.float32)
    rles = paste.paste_to_rles(masks, boxes, height, width, convention=convention)
    assert len(rles) == len(boxes)
    for mask, box, rle in zip(masks, boxes, rles, strict=True):
        full = to_full(paste.paste_mask(mask, box, height, width, convention), height, width) >= 0.5
        assert rle == coco_mask.encode(np.asfortranarray(full, np.uint8))
    assert paste.paste_to_rles(masks[:0], boxes[:0], height, width) == []


def test_a_large_mask_is_the_product_of_both_axes():
    """It is computed a few rows at a time."""
    rng = np.random.default_rng(5)
    mask, (y1, x1, y2, x2) = rng.random([28, 28]), (3.2, 5.7, 890.1, 1201.3)

    def hats(first, count, start, end):
        cell = (first + np.arange(count)[:, None] + 0.5 - start) / (end - start) * 28 - 0.5
        return np.maximum(1 - np.abs(cell - np.arange(28)), 0)

    probs, top, left = paste.paste_mask(mask, (y1, x1, y2, x2), 1000, 1300, "pixel_centres")
    rows, cols = hats(top, probs.shape[0], y1, y2), hats(left, probs.shape[1], x1, x2)
    np.testing.assert_allclose(probs, rows @ mask @ cols.T, atol=1e-4)


def test_threshold_is_inclusive_and_used():
    mask = np.full((4, 4), 0.25, np.float32)
    box = (-100, -100, 100, 100)  # the image lies in the middle of the mask
    for threshold, pixels in ((0.25, 200), (0.2501, 0)):
        rle = paste.paste_to_rle(mask, box, 10, 20, threshold)
        assert coco_mask.area(rle) == pixels


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match=r"'cv2'.*pixel_centres.*torchvision"):
        paste.paste_mask(np.ones((2, 2)), (0, 0, 1, 1), 5, 5, "cv2")


@pytest.mark.parametrize(
    ("recording", "convention"),
    [
        ("maskrcnn_r50_fpn_detectron2", "pixel_centres"),
        ("maskrcnn_r50_c4_detectron2", "pixel_centres"),
        ("maskrcnn_r50_fpn_torchvision", "torchvision"),
    ],
)
def test_recorded_masks_are_reproduced_bit_by_bit(shared, recording, convention):
    path = shared / "golden" / f"{recording}.npz"
    if not path.exists():
        pytest.skip(f"no recording {path.name}")
    with np.load(path) as golden:
        boxes = golden["detection_boxes"][:, [1, 0, 3, 2]]
        height, width = golden["image"].shape[:2]
        packed = golden["detection_masks_packed"]
        if convention == "torchvision":
            probs = 1 / (1 + np.exp(-golden["mask_logits_of_class"]))
        else:
            probs = golden["mask_probs_of_class"]
    want = np.unpackbits(packed, axis=-1)[..., :width].astype(bool)
    rles = [
        paste.paste_to_rle(p, b, height, width, convention=convention)
        for p, b in zip(probs, boxes, strict=True)
    ]
    got = np.stack([coco_mask.decode(rle).astype(bool) for rle in rles])
    assert want.sum() > 30_000
    assert np.count_nonzero(got != want) == 0
