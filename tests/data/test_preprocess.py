"""preprocess.py: sizes and images against the projects' own arithmetic, objects by lookup."""

import math

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, decoder, preprocess, schema


def _detectron2_size(height, width, short_edge, long_edge):
    scale = short_edge / min(height, width)
    if height < width:
        new_height, new_width = float(short_edge), scale * width
    else:
        new_height, new_width = scale * height, float(short_edge)
    if max(new_height, new_width) > long_edge:
        scale = long_edge / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def _torchvision_size(height, width, short_edge, long_edge):
    scale = min(short_edge / min(height, width), long_edge / max(height, width))
    return max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)


TWINS = {"detectron2": _detectron2_size, "torchvision": _torchvision_size}


@pytest.mark.parametrize("convention", preprocess.CONVENTIONS)
@pytest.mark.parametrize(("short_edge", "long_edge"), [(800, 1333), (640, 1333), (128, 128)])
def test_resized_sizes_equal_the_projects(convention, short_edge, long_edge):
    original = np.random.default_rng(0).integers(1, 2000, [3000, 2]).astype(np.int32)
    original[:1000, 1] = original[:1000, 0]
    original[0] = 1, 5000  # detectron2 would make an image without height of this
    sizes = preprocess.resized_size_hw(original, short_edge, long_edge, convention)
    expected = [TWINS[convention](int(h), int(w), short_edge, long_edge) for h, w in original]
    np.testing.assert_array_equal(sizes, expected)


def test_hand_worked_sizes():
    def size(original, convention):
        return preprocess.resized_size_hw(tf.constant(original), 800, 1333, convention).numpy()

    np.testing.assert_array_equal(size([480, 640], "detectron2"), [800, 1067])
    # As torchvision 0.28 made of such an image, neither scripted nor traced.
    np.testing.assert_array_equal(size([480, 640], "torchvision"), [800, 1066])
    np.testing.assert_array_equal(size([640, 360], "detectron2"), [1333, 750])
    with pytest.raises(ValueError, match="known: detectron2, torchvision"):
        size([480, 640], "detectron")


@pytest.mark.parametrize("size_hw", [(30, 47), (75, 117), (150, 234), (20, 400), (1, 1)])
def test_detectron2_resizing_is_pillows(size_hw):
    image_lib = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, [50, 78, 3], dtype=np.uint8)
    resized = preprocess.resize_image(image, tf.constant(size_hw), "detectron2").numpy()
    expected = image_lib.fromarray(image).resize(size_hw[::-1], image_lib.Resampling.BILINEAR)
    assert (resized == np.round(resized)).all()
    assert np.abs(resized - np.asarray(expected, np.float32)).max() <= 1


def _bilinear(image, size_hw):
    """Slow twin: half-pixel centres, clamped at the border, no antialiasing."""
    height, width = image.shape[:2]

    def taps(new, old):
        centre = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.minimum(centre.astype(int), old - 1)
        return low, np.minimum(low + 1, old - 1), (centre - low)

    y1, y2, fy = taps(size_hw[0], height)
    x1, x2, fx = taps(size_hw[1], width)
    rows = image[y1] * (1 - fy)[:, None, None] + image[y2] * fy[:, None, None]
    return rows[:, x1] * (1 - fx)[:, None] + rows[:, x2] * fx[:, None]


@pytest.mark.parametrize("size_hw", [(30, 47), (150, 234), (1, 1)])
def test_torchvision_image_is_normalised_then_resized(size_hw):
    image = np.random.default_rng(1).integers(0, 256, [50, 78, 3], dtype=np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    prepared = preprocess.prepare_image(
        tf.constant(image),
        tf.constant(size_hw),
        tf.constant([160, 256]),
        convention="torchvision",
        channel_order="rgb",
        pixel_mean=tuple(255 * mean),
        pixel_std=tuple(255 * std),
    ).numpy()
    expected = _bilinear((image / 255 - mean) / std, size_hw)
    assert prepared.shape == (160, 256, 3)
    np.testing.assert_allclose(prepared[: size_hw[0], : size_hw[1]], expected, atol=5e-5)
    assert not prepared[size_hw[0] :].any()
    assert not prepared[:, size_hw[1] :].any()


def test_channel_order_and_statistics():
    image = tf.constant([[[10, 20, 30], [0, 0, 255]]], tf.uint8)
    prepared = preprocess.prepare_image(
        image,
        tf.constant([1, 2]),
        tf.constant([1, 3]),
        convention="detectron2",
        channel_order="bgr",
        pixel_mean=(100.0, 110.0, 120.0),
        pixel_std=(1.0, 2.0, 4.0),
    )
    expected = [[[-70, -45, -27.5], [155, -55, -30], [0, 0, 0]]]
    np.testing.assert_allclose(prepared, expected)
    with pytest.raises(ValueError, match="rgb, bgr"):
        preprocess.order_channels(image, "grb")


def test_images_of_a_batch_equal_single_ones():
    images = np.random.default_rng(2).integers(0, 256, [2, 9, 13, 3], dtype=np.uint8)

    def prepare(image):
        resized = preprocess.resize_image(image, tf.constant([12, 17]), "detectron2")
        return preprocess.normalise(resized, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))

    batch = tf.function(prepare)(tf.constant(images))
    for image, prepared in zip(images, batch, strict=True):
        np.testing.assert_allclose(prepared, prepare(tf.constant(image)), atol=1e-6)


def _decode(scene, serialize):
    return decoder.decode(serialize(scene), label_ids=(1, 7, 90), include_masks=True)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size_hw", [(12, 19), (24, 37), (36, 56), (9, 40)])
def test_masks_equal_nearest_resizing_of_the_full_mask(
    make_scene, serialize, arena_masks, flip, size_hw
):
    """The whole way: run lengths, flip, scale, (subsample,) arena, lookup."""
    scene = make_scene(size_hw[1], 24, 37, 5)
    scene.crowds = [False] * 5
    example = augment.flip_left_right(_decode(scene, serialize), tf.constant(flip))
    row = preprocess.prepare_objects(
        example, tf.constant(size_hw), max_instances=7, mask_arena_pixels=2**15
    )
    masks = scene.masks[:, :, ::-1] if flip else scene.masks
    centres = [(np.arange(n) + 0.5) * old / n for n, old in zip(size_hw, (24, 37), strict=True)]
    rows, cols = (np.floor(c).astype(int) for c in centres)
    expected = np.zeros([7, *size_hw], bool)
    expected[:5] = masks[:, rows][:, :, cols]
    if flip:  # a centre on a pixel's edge goes to the pixel that was the right one before
        cols = 36 - np.floor(37 - centres[1]).astype(int)
        expected[:5] = masks[:, rows][:, :, np.clip(cols, 0, 36)]
    found = arena_masks(row, *size_hw)
    if size_hw in ((12, 19), (24, 37)) or not flip:
        np.testing.assert_array_equal(found, expected)
    assert (found != expected).mean() < 0.02
    scale = np.tile(np.array(size_hw) / [24, 37], 2)
    boxes = scene.boxes
    if flip:
        boxes = np.stack([boxes[:, 0], 37 - boxes[:, 3], boxes[:, 2], 37 - boxes[:, 1]], 1)
    np.testing.assert_allclose(row[schema.GT_BOXES][:5], boxes * scale, atol=1e-4)


def test_padding_and_truncation(make_scene, serialize, arena_masks):
    scene = make_scene(3, 16, 16, 5)
    scene.crowds = [False, True, False, True, False]
    example = _decode(scene, serialize)

    def prepare(max_instances, mask_arena_pixels=2**13):
        return preprocess.prepare_objects(
            example,
            tf.constant([16, 16]),
            max_instances=max_instances,
            mask_arena_pixels=mask_arena_pixels,
        )

    order = [0, 2, 4, 1, 3]  # crowds last
    row = prepare(8)
    np.testing.assert_array_equal(row[schema.GT_VALID], [True] * 5 + [False] * 3)
    np.testing.assert_allclose(row[schema.GT_BOXES][:5], scene.boxes[order], atol=1e-5)
    np.testing.assert_array_equal(row[schema.GT_IS_CROWD], [False] * 3 + [True] * 2 + [False] * 3)
    np.testing.assert_array_equal(arena_masks(row, 16, 16)[:5], scene.masks[order])
    assert int(row[schema.NUM_DROPPED_OBJECTS]) == 0
    assert int(row[schema.NUM_DROPPED_MASKS]) == 0
    for key in (schema.GT_BOXES, schema.GT_CLASSES, schema.GT_MASK_SIZES, schema.GT_MASK_FRAMES):
        assert not np.any(row[key][5:])
    assert not np.any(row[schema.GT_MASKS_VALID][5:])

    row = prepare(4)
    assert int(row[schema.NUM_DROPPED_OBJECTS]) == 1
    np.testing.assert_array_equal(arena_masks(row, 16, 16), scene.masks[order[:4]])
    row = prepare(2)
    assert int(row[schema.NUM_DROPPED_OBJECTS]) == 3
    np.testing.assert_array_equal(arena_masks(row, 16, 16), scene.masks[[0, 2]])

    # An arena for the first two of them in the record's order.
    areas = scene.boxes[:, 2:] - scene.boxes[:, :2]
    capacity = int(-(-areas.prod(axis=1)[:2].sum() // 8) * 8)
    row = prepare(5, capacity)
    is_valid = np.asarray(row[schema.GT_MASKS_VALID])
    np.testing.assert_array_equal(is_valid, [True, False, False, True, False])
    np.testing.assert_array_equal(row[schema.GT_VALID], [True] * 5)
    assert int(row[schema.NUM_DROPPED_MASKS]) == 3
    assert int(row[schema.NUM_DROPPED_OBJECTS]) == 0
    # Objects beyond max_instances are not counted a second time for their masks.
    assert int(prepare(2, 0)[schema.NUM_DROPPED_MASKS]) == 2
    np.testing.assert_array_equal(arena_masks(row, 16, 16)[[0, 3]], scene.masks[:2])


def test_object_that_vanishes_has_no_valid_mask(scene_type, serialize):
    mask = np.zeros([1, 40, 40], bool)
    mask[0, 3, 2:30] = True  # one row: none of the 4 rows that remain has its centre in it
    scene = scene_type(np.zeros([40, 40, 3], np.uint8), mask, [1], [False])
    row = preprocess.prepare_objects(
        _decode(scene, serialize), tf.constant([4, 4]), max_instances=1, mask_arena_pixels=64
    )
    assert bool(row[schema.GT_VALID][0])
    assert not bool(row[schema.GT_MASKS_VALID][0])
    assert int(row[schema.NUM_DROPPED_MASKS]) == 0  # no larger arena would keep it


def test_no_objects_and_no_arena(make_scene, serialize):
    row = preprocess.prepare_objects(
        _decode(make_scene(0, 8, 8, 0), serialize),
        tf.constant([4, 4]),
        max_instances=3,
        mask_arena_pixels=0,
    )
    assert not any(np.any(value) for value in row.values())
    assert row[schema.GT_MASK_BITS].shape == [0]


def test_identity():
    example = {schema.SOURCE_ID: tf.constant("äb"), schema.IMAGE: tf.zeros([3, 4, 3], tf.uint8)}
    row = preprocess.identity(example, tf.constant([6, 8]))
    assert bytes(row[schema.SOURCE_ID].numpy()).rstrip(b"\0").decode() == "äb"
    assert row[schema.SOURCE_ID].shape == [schema.SOURCE_ID_BYTES]
    np.testing.assert_array_equal(row[schema.IMAGE_SIZE_HW], [6, 8])
    np.testing.assert_array_equal(row[schema.ORIGINAL_SIZE_HW], [3, 4])
    assert row[schema.IMAGE_KEY].dtype == tf.int32
    assert int(row[schema.IMAGE_KEY]) >= 0
