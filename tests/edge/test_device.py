"""What runs on a device: resizing, pasting, reading; NumPy and Pillow only."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.edge import device, image_run
from mrcnn_tf.images import reading
from mrcnn_tf.ops import paste

DESCRIPTION = {
    "categories": [{"class": 1, "id": 17, "name": "Röhre"}, {"class": 2, "id": 3, "name": "b"}],
    "mask_convention": "pixel_centres",
}


def grey(rows) -> np.ndarray:
    """uint8 [h, w] -> [h, w, 3]."""
    return np.repeat(np.array(rows, np.uint8)[..., np.newaxis], 3, axis=2)


def test_a_picture_is_as_large_as_the_input_holds_in_the_upper_left_corner():
    image, size_hw = device.fit(np.full([10, 20, 3], 200, np.uint8), (32, 64), "detectron2")
    assert (image.shape, image.dtype, size_hw.tolist()) == ((1, 32, 64, 3), np.uint8, [32, 64])
    image, size_hw = device.fit(np.full([20, 10, 3], 200, np.uint8), (32, 64), "detectron2")
    assert size_hw.tolist() == [32, 16]
    assert (image[0, :, :16] == 200).all()
    assert not image[0, :, 16:].any()


@pytest.mark.parametrize("resize", ["detectron2", "torchvision"])
@pytest.mark.parametrize("picture_hw", [(1, 1000), (1000, 1), (1, 1), (33, 47)])
def test_every_picture_keeps_at_least_a_pixel(picture_hw, resize):
    image, size_hw = device.fit(np.full([*picture_hw, 3], 9, np.uint8), (32, 64), resize)
    assert (size_hw >= 1).all()
    assert (size_hw <= (32, 64)).all()
    assert 32 in size_hw[:1] or 64 in size_hw[1:]
    assert (image[0, : size_hw[0], : size_hw[1]] == 9).all()


def test_resizing_without_antialiasing_reads_the_two_nearest_pixels():
    # The centres of two pixels lie at 1 and 3 of four, between 0, 100 and 200, 40.
    shrunk, _ = device.fit(grey([[0, 100, 200, 40]] * 4), (2, 2), "torchvision")
    assert shrunk[0, :, :, 0].tolist() == [[50, 120], [50, 120]]
    # And at 0.25, 0.75, 1.25 and 1.75 of two, whose own lie at 0.5 and 1.5.
    enlarged, _ = device.fit(grey([[0, 100]] * 2), (4, 4), "torchvision")
    assert enlarged[0, 0, :, 0].tolist() == [0, 25, 75, 100]


def test_resizing_with_antialiasing_averages():
    stripes = grey([[0, 200] * 32] * 64)
    smooth, _ = device.fit(stripes, (16, 16), "detectron2")
    # Triangles of two cells' width: half of the stripes everywhere, but for the border.
    assert np.abs(smooth[0, 1:-1, 1:-1].astype(int) - 100).max() <= 1
    aliased, _ = device.fit(stripes, (64 // 3, 64 // 3), "torchvision")
    assert np.ptp(aliased) > 50


@pytest.mark.parametrize("convention", ["pixel_centres", "torchvision"])
def test_pasting_is_that_of_the_package(convention):
    random = np.random.default_rng(3)
    masks = random.uniform(0, 1, [300, 28, 28]).astype(np.float32)
    corner, side = random.uniform(-60, 120, [300, 2]), random.uniform(0, 90, [300, 2])
    boxes = np.concatenate([corner, corner + side], axis=1)
    boxes[:6] = [
        (5, 5, 5, 9),  # no height
        (9, 5, 5, 9),  # inverted
        (np.nan, 0, 5, 5),
        (0, 0, np.inf, 5),
        (200, 0, 260, 10),  # outside
        (3, 4, 4, 5),  # one pixel
    ]
    expected = paste.paste_masks(masks, boxes, 70, 90, convention)
    for mask, box, theirs in zip(masks, boxes, expected, strict=True):
        ours, top, left = device.paste(mask, box, (70, 90), convention)
        if not theirs.probs.size:
            assert not ours.size
            continue
        assert (top, left) == (theirs.top, theirs.left)
        np.testing.assert_allclose(ours, theirs.probs, atol=1e-5)


def test_boxes_are_brought_into_the_frame_of_the_picture():
    # A picture of 100 x 300 lies as 32 x 96 in the input; the second row is no detection.
    outputs = {
        "boxes": np.array([[8, 24, 16, 48], [0, 0, 9, 9]], np.float32),
        "classes": np.array([1, 2], np.int32),
        "scores": np.array([0.75, 0.5], np.float32),
        "count": np.int32(1),
        "masks": np.stack([np.tile(np.arange(28) < 14, (28, 1)), np.ones([28, 28])]),
    }
    (found,) = device.to_picture(outputs, np.array([32, 96]), (100, 300), DESCRIPTION)
    np.testing.assert_allclose(found.box, [25, 75, 50, 150])
    assert (found.category, found.category_id, found.score) == ("Röhre", 17, 0.75)
    assert found.mask_score is None
    scored = outputs | {"mask_scores": np.array([0.625, 0.0], np.float32)}
    (with_score,) = device.to_picture(scored, np.array([32, 96]), (100, 300), DESCRIPTION)
    assert (with_score.score, with_score.mask_score) == (0.75, 0.625)
    whole = np.zeros([100, 300], bool)
    height, width = found.mask.shape
    whole[found.top : found.top + height, found.left : found.left + width] = found.mask
    rows, columns = np.nonzero(whole)
    # Its left half: between cells 13 and 14 a probability of one half counts.
    assert (rows.min(), rows.max()) == (25, 49)
    assert (columns.min(), columns.max()) in {(75, 112), (75, 111)}


def test_rows_are_those_of_a_saved_model():
    random = np.random.default_rng(0)
    box = np.array([3.3, 4.4, 30.123456, 44.9])
    probs = random.uniform(0, 1, [28, 28]).astype(np.float32)
    mask, top, left = device.paste(probs, box, (40, 50), "pixel_centres")
    found = device.Found(box, 0.123456789, 17, "Röhre", mask >= 0.5, top, left, 0.0987654321)
    empty = found._replace(mask=None, box=np.array([1.0, 2.0, 1.0, 2.0]), mask_score=None)
    ours, without = image_run.detections_of([found, empty], (40, 50))
    whole = np.zeros([40, 50], np.uint8)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask >= 0.5
    assert coco_mask.decode(ours.mask).tolist() == whole.tolist()
    row = ours.to_coco("a/b.jpg")
    assert row["bbox"] == [4.4, 3.3, 40.5, 26.823]
    assert (row["category_id"], row["category"], row["score"]) == (17, "Röhre", 0.123457)
    assert row["mask_score"] == 0.098765
    assert row["segmentation"]["size"] == [40, 50]
    assert "mask_score" not in without.to_coco("x")
    assert "segmentation" not in without.to_coco("x")
    assert without.to_coco("x")["bbox"] == [2.0, 1.0, 0.001, 0.001]


@pytest.mark.parametrize("tag", range(10))
@pytest.mark.parametrize("kind", ["png", "jpg", "tiff"])
def test_pictures_are_read_upright(tmp_path, tag, kind):
    random = np.random.default_rng(tag)
    blocks = random.integers(0, 2, [3, 5, 3], np.uint8).repeat(16, 0).repeat(16, 1) * 255
    exif = Image.Exif()
    exif[0x0112] = tag
    path = str(tmp_path / f"a.{kind}")
    Image.fromarray(blocks).save(path, exif=exif, quality=95)
    expected = reading.read(path).pixels
    # Pillow's and TensorFlow's JPEG decoders differ by a few levels.
    tolerance = 12 if kind == "jpg" else 0
    np.testing.assert_allclose(device.read(path).astype(int), expected, atol=tolerance)


def test_deep_pictures_follow_the_rule_of_depth(tmp_path):
    path = str(tmp_path / "deep.png")
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(values).save(path)
    assert device.read(path).tolist() == reading.read(path).pixels.tolist()


def test_a_drawing_changes_what_is_found_and_nothing_else():
    pixels = np.zeros([20, 30, 3], np.uint8)
    mask = np.ones([4, 5], bool)
    found = device.Found(np.array([2, 3, 6, 8.0]), 0.9, 1, "a", mask, 2, 3)
    drawn = device.draw(pixels, [found])
    changed = drawn.any(axis=2)
    assert changed[2:6, 3:8].all()
    assert changed.sum() == 20
    framed = device.draw(pixels, [found._replace(mask=None)]).any(axis=2)
    assert framed.sum() == 2 * 5 + 2 * 2
    assert not pixels.any()


@pytest.mark.parametrize(
    ("box", "framed"),
    [
        ([2, 29.6, 8, 30], 6),  # round(29.6) is one behind the last column
        ([19.7, 2, 20, 9], 7),
        ([-3, -3, 25, 35], 2 * 30 + 2 * 18),
        ([5.1, 6.1, 5.2, 6.2], 1),
    ],
)
def test_a_frame_stays_within_the_picture(box, framed):
    found = device.Found(np.array(box, np.float64), 0.9, 1, "a", None, 0, 0)
    drawn = device.draw(np.zeros([20, 30, 3], np.uint8), [found])
    assert drawn.any(axis=2).sum() == framed


def test_damaged_pictures_are_named(tmp_path):
    good = tmp_path / "good.png"
    noise = np.random.default_rng(0).integers(0, 256, [200, 200, 3], np.uint8)
    Image.fromarray(noise).save(good)
    content = bytearray(good.read_bytes())
    second = content.index(b"IDAT", content.index(b"IDAT") + 1)
    content[second : second + 4] = b"\x80\x80\x80\x80"  # Pillow raises SyntaxError
    damages = {"text.png": b"hello", "short.png": content[:500], "chunk.png": content}
    for name, damaged in damages.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}: .*\w"):
            device.read(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        device.read(str(tmp_path / "gone.png"))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.tflite"):
        device.load(str(tmp_path / "gone.tflite"))
    (tmp_path / "a.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.pb: neither \.tflite nor \.onnx"):
        device.load(str(tmp_path / "a.pb"))
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(ValueError, match=r"a\.tflite: damaged, or not written by"):
        device.load(str(tmp_path / "a.tflite"))


def test_the_single_file_imports_numpy_pillow_and_nothing_of_ours():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-I", "-c", code, device.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split()) - sys.stdlib_module_names
    assert {"numpy", "PIL"} <= loaded
    assert not loaded & {"tensorflow", "mrcnn_tf", "pycocotools", "absl", "tqdm"}
