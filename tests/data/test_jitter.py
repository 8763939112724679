"""augment.py: large-scale jitter and colour jitter against slow twins, alone and in tf.data."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import augment, decoder, preprocess, schema

NO_COLOR = augment.ColorJitter(0.0, 0.0, 0.0, 0.0)


def _decode(scene, serialize, **overrides):
    record = serialize(scene, **overrides)
    return decoder.decode(record, label_ids=(1, 7, 90), include_masks=True)


def _crop(example, y, x, height, width):
    return augment.crop(example, tf.constant([y, x]), tf.constant([height, width]))


def _tight_box(mask):
    ys, xs = np.nonzero(mask)
    return [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]


def _assert_same(first, second):
    assert set(first) == set(second)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], err_msg=key)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_crop_equals_cropping_full_masks(make_scene, serialize, example_masks, seed, flip):
    scene = make_scene(seed, 13, 17, 6)
    rng = np.random.default_rng(seed)
    example = augment.flip_left_right(_decode(scene, serialize), tf.constant(flip))
    image, masks = scene.image, scene.masks
    if flip:
        image, masks = image[:, ::-1], masks[:, :, ::-1]
    height, width = (int(n) for n in rng.integers(1, [14, 18]))
    y, x = (int(n) for n in rng.integers(0, [14 - height, 18 - width]))
    for call in (_crop, tf.function(_crop)) if seed == 1 else (_crop,):  # tracing takes a second
        cropped = call(example, y, x, height, width)
        window = np.s_[y : y + height, x : x + width]
        np.testing.assert_array_equal(cropped[schema.IMAGE], image[window])
        left = masks[:, *window]
        is_left = left.any((1, 2))
        np.testing.assert_array_equal(example_masks(cropped, height, width), left[is_left])
        boxes = np.array([_tight_box(mask) for mask in left[is_left]]).reshape(-1, 4)
        np.testing.assert_allclose(cropped[schema.GT_BOXES], boxes, atol=1e-5)
        for key in (schema.GT_CLASSES, schema.GT_IS_CROWD):
            np.testing.assert_array_equal(cropped[key], example[key].numpy()[is_left])
        # The bits of what is dropped are gone.
        num_pixels = cropped[schema.GT_MASK_SIZES].numpy().prod(axis=1).sum()
        assert cropped[schema.GT_MASK_BITS].shape == ((num_pixels + 7) // 8,)


def test_cropping_nothing_and_cropping_twice(make_scene, serialize):
    example = _decode(make_scene(1, 12, 15, 5), serialize)
    _assert_same(_crop(example, 0, 0, 12, 15), example)
    twice = _crop(_crop(example, 1, 2, 10, 11), 3, 1, 6, 9)
    once = _crop(example, 4, 3, 6, 9)
    _assert_same(twice, once)
    assert once[schema.GT_CLASSES].shape != example[schema.GT_CLASSES].shape


def test_flip_of_a_crop_is_the_mirrored_crop_of_the_flip(make_scene, serialize):
    example = _decode(make_scene(2, 12, 15, 5), serialize)
    flip = tf.constant(True)
    first = augment.flip_left_right(_crop(example, 2, 3, 8, 7), flip)
    second = _crop(augment.flip_left_right(example, flip), 2, 15 - 3 - 7, 8, 7)
    _assert_same(first, second)


def test_boxes_of_what_is_left(scene_type, serialize):
    """An image of 10 x 20 of which columns 5 to 14 stay."""
    masks = np.zeros([6, 10, 20], bool)
    masks[0, 2:4, 6:9] = True  # inside
    masks[1, np.arange(10), np.arange(10)] = True  # diagonal: rows 5..9 are left
    masks[2, 1, 2:4] = masks[2, 1, 17] = True  # two parts, none of them in the middle
    masks[3, 0, 0:2] = True  # outside
    masks[5, :, 14:] = True  # the first column of it
    scene = scene_type(
        np.zeros([10, 20, 3], np.uint8), masks, [1, 7, 90, 1, 7, 90], [False] * 5 + [True]
    )
    boxes = scene.boxes
    boxes[0] = 1.75, 5.0, 4.25, 9.5  # as annotated: not tight
    boxes[4] = 3.0, 2.5, 6.0, 8.5  # no mask
    normalised = boxes / np.float32([10, 20, 10, 20])
    columns = {
        name: normalised[:, k]
        for k, name in enumerate(
            (schema.BBOX_YMIN, schema.BBOX_XMIN, schema.BBOX_YMAX, schema.BBOX_XMAX)
        )
    }
    cropped = _crop(_decode(scene, serialize, **columns), 0, 5, 10, 10)
    np.testing.assert_array_equal(cropped[schema.GT_CLASSES], [1, 2, 2, 3])
    np.testing.assert_array_equal(cropped[schema.GT_IS_CROWD], [False, False, False, True])
    expected = [[1.75, 0.0, 4.25, 4.5], [5, 0, 10, 5], [3, 0, 6, 3.5], [0, 9, 10, 10]]
    np.testing.assert_allclose(cropped[schema.GT_BOXES], expected, atol=1e-6)
    np.testing.assert_array_equal(cropped[schema.GT_MASK_FRAMES][1], [0, -5, 10, 5])
    np.testing.assert_array_equal(cropped[schema.GT_MASK_SIZES][:, 1], [3, 10, 0, 6])


def _fit(example, side):
    hw = tf.shape(example[schema.IMAGE])[:2]
    return preprocess.resized_size_hw(hw, side, side, "detectron2")


def test_hand_worked_jitter(scene_type, serialize):
    """480 x 640 fitted into 1024: 768 x 1024; twice that: 1536 x 2048, of which 1024 are seen."""
    image = np.arange(480 * 640 * 3).reshape(480, 640, 3).astype(np.uint8)
    scene = scene_type(image, np.zeros([0, 480, 640], bool), [], [])
    example = _decode(scene, serialize)

    def jitter(scale, position):
        part, size_hw = augment.scale_and_crop(
            example, _fit(example, 1024), 1024, tf.constant(scale), tf.constant(position)
        )
        return part[schema.IMAGE].numpy(), size_hw.numpy().tolist()

    part, size_hw = jitter(2.0, [0.0, 0.0])
    assert size_hw == [1024, 1024]
    np.testing.assert_array_equal(part, image[:320, :320])
    part, _ = jitter(2.0, [0.5, 0.9999999])
    np.testing.assert_array_equal(part, image[80:400, 320:])
    part, size_hw = jitter(1.2, [0.999, 0.999])  # 921.6 x 1228.8: only the columns are cut
    assert size_hw == [922, 1024]
    np.testing.assert_array_equal(part, image[:, 640 - 533 :])
    part, size_hw = jitter(0.5, [0.7, 0.7])
    assert size_hw == [384, 512]
    np.testing.assert_array_equal(part, image)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (700, 1), (3, 2), (64, 64)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 1.9])
def test_odd_images(make_scene, serialize, height, width, scale):
    example = _decode(make_scene(0, height, width, 1), serialize)
    for position in ([0.0, 0.0], [0.99999994, 0.99999994]):  # the largest float32 below 1
        part, size_hw = augment.scale_and_crop(
            example, _fit(example, 64), 64, tf.constant(scale), tf.constant(position)
        )
        part_hw = part[schema.IMAGE].shape[:2]
        assert all(1 <= a <= b for a, b in zip(part_hw, (height, width), strict=True))
        assert all(1 <= n <= 64 for n in size_hw.numpy())
        boxes = part[schema.GT_BOXES].numpy()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= part_hw).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.3, 0.77, 1.45, 4.0, 5.3])
def test_jittered_masks_equal_the_lookup_formula(make_scene, serialize, arena_masks, scale, flip):
    """The whole way: flip, part, scale, arena, against looking up full masks pixel by pixel."""
    scene = make_scene(7, 24, 36, 5)
    scene.crowds = [False] * 5
    scene.masks[0] = np.random.default_rng(0).random([24, 36]) < 0.5  # is in every part
    position = np.array([0.4, 0.3], np.float32)
    example = augment.flip_left_right(_decode(scene, serialize), tf.constant(flip))
    part, size_hw = augment.scale_and_crop(
        example, tf.constant([24, 36]), 36, tf.constant(scale), tf.constant(position)
    )
    row = preprocess.prepare_objects(part, size_hw, max_instances=5, mask_arena_pixels=2**13)
    part_hw = np.array(part[schema.IMAGE].shape[:2])
    corner = np.floor(position * ([25, 37] - part_hw)).astype(int)
    masks = scene.masks[:, :, ::-1] if flip else scene.masks
    rows, cols = (
        corner[k] + np.floor((np.arange(size) + 0.5) * part_hw[k] / size).astype(int)
        for k, size in enumerate(size_hw.numpy())
    )
    expected = masks[:, rows][:, :, cols]
    is_left = masks[:, *(slice(c, c + n) for c, n in zip(corner, part_hw, strict=True))].any((1, 2))
    found = arena_masks(row, *size_hw.numpy())
    np.testing.assert_array_equal(row[schema.GT_VALID].numpy().sum(), is_left.sum())
    # A centre that lies on a pixel's edge may fall to either side.
    differs = found[: is_left.sum()] != expected[is_left]
    assert differs.mean() < (0.02 if flip else 1e-9)
    # Boxes hold their masks.
    for mask, box in zip(found[: is_left.sum()], row[schema.GT_BOXES].numpy(), strict=False):
        ys, xs = np.nonzero(mask)
        if ys.size:
            assert (box[:2] <= [ys.min() + 0.51, xs.min() + 0.51]).all()
            assert (box[2:] >= [ys.max() + 0.49, xs.max() + 0.49]).all()


def test_random_jitter_is_a_function_of_the_seed():
    example = {
        schema.IMAGE: tf.zeros([50, 40, 3], tf.uint8),
        schema.GT_BOXES: tf.constant([[0.0, 0.0, 50.0, 40.0]]),
        schema.GT_CLASSES: tf.constant([1]),
        schema.GT_IS_CROWD: tf.constant([False]),
        schema.GT_MASK_BITS: tf.constant(np.packbits(np.ones(2000, bool))),
        schema.GT_MASK_FRAMES: tf.constant([[0.0, 0.0, 50.0, 40.0]]),
        schema.GT_MASK_SIZES: tf.constant([[50, 40]]),
    }

    def jitter(seed, position, scale_range=(0.5, 2.0)):
        part, size_hw = augment.random_scale_and_crop(
            example, tf.stack([seed, position]), tf.constant([500, 400]), 500, scale_range
        )
        return size_hw, part[schema.GT_MASK_FRAMES][0]

    def draw(seed, **kwargs):
        dataset = tf.data.Dataset.range(200).map(lambda position: jitter(seed, position, **kwargs))
        return [np.array(column) for column in zip(*dataset.as_numpy_iterator(), strict=True)]

    sizes, frames = draw(3)
    for first, second in zip((sizes, frames), draw(3), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (sizes != draw(4)[0]).any()
    np.testing.assert_array_equal(
        jitter(tf.constant(3, tf.int64), tf.constant(0, tf.int64))[0], sizes[0]
    )
    # A third of the images is shrunk: the long edge tells the scale, uniform from 0.5 on.
    shrunk = sizes[:, 0] < 500
    assert 40 <= shrunk.sum() <= 94  # mean 67, four standard deviations are 27
    assert 250 <= sizes[:, 0].min() < 265
    assert abs(sizes[shrunk, 0].mean() - 375) < 45
    np.testing.assert_array_equal(frames[shrunk][:, :2], 0)
    # The others are cut; their places are spread over both axes, and not along the diagonal.
    corners = -frames[~shrunk & (sizes[:, 1] == 500)][:, :2]
    assert (corners >= 0).all()
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.75
    assert (corners.max(0) >= [15, 10]).all()  # of up to 25 and 15
    fixed, _ = draw(3, scale_range=(0.8, 0.8))
    np.testing.assert_array_equal(fixed, [[400, 320]] * 200)


def _adjust_slowly(image, brightness, contrast, saturation, hue):
    """The four steps one after the other, in float64, each as its definition says."""
    weights = np.array([0.299, 0.587, 0.114])
    to_yiq = np.array([weights, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
    image = image.astype(np.float64) * brightness
    mean_grey = (image @ weights).mean()
    image = mean_grey + contrast * (image - mean_grey)
    grey = (image @ weights)[..., None]
    image = grey + saturation * (image - grey)
    y, i, q = np.moveaxis(image @ to_yiq.T, -1, 0)
    turned = (i + 1j * q) * np.exp(2j * np.pi * hue)
    image = np.stack([y, turned.real, turned.imag], axis=-1) @ np.linalg.inv(to_yiq).T
    return np.clip(np.floor(image + 0.5), 0, 255)


@pytest.mark.parametrize("seed", range(5))
def test_colours_equal_the_four_steps(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, [[9, 11, 3], [1, 1, 3]][seed == 0], dtype=np.uint8)
    factors, hue = rng.uniform(0.4, 1.6, 3), rng.uniform(-0.5, 0.5)
    expected = _adjust_slowly(image, *factors, hue)
    for call in (augment.adjust_color, tf.function(augment.adjust_color)):
        found = call(image, tf.constant(factors, tf.float32), tf.constant(hue, tf.float32)).numpy()
        assert found.dtype == np.uint8
        assert np.abs(found - expected).max() <= 1  # a half may be rounded either way
        assert (found != expected).mean() < 0.02


def test_hand_worked_colours():
    def adjust(pixels, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
        image = tf.constant([pixels], tf.uint8)
        factors = tf.constant([brightness, contrast, saturation])
        return augment.adjust_color(image, factors, tf.constant(hue)).numpy()[0].tolist()

    pixels = [[200, 100, 0], [10, 20, 30]]
    assert adjust(pixels) == pixels
    assert adjust(pixels, brightness=0.5) == [[100, 50, 0], [5, 10, 15]]
    assert adjust(pixels, brightness=2.0) == [[255, 200, 0], [20, 40, 60]]
    assert adjust(pixels, saturation=0.0) == [[119] * 3, [18] * 3]  # 118.5, 18.15
    assert adjust(pixels, contrast=0.0) == [[68] * 3] * 2  # their mean: 68.3
    assert adjust(pixels, contrast=0.0, brightness=0.5) == [[34] * 3] * 2
    greys = [[0] * 3, [77] * 3, [255] * 3]
    assert adjust(greys, saturation=1.7, hue=0.3) == greys
    # A third of the circle takes red towards green or blue, and back again.
    there = adjust([[150, 100, 100]], hue=1 / 3)
    hue = colorsys.rgb_to_hsv(*there[0])[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.1
    assert np.abs(np.subtract(adjust(there, hue=-1 / 3), [[150, 100, 100]])).max() <= 1


def test_random_colours_are_a_function_of_the_seed(make_scene):
    example = {schema.IMAGE: tf.constant(make_scene(0, 6, 5, 0).image), "other": tf.constant(3)}
    jitter = augment.ColorJitter(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)

    def image(seed, position, jitter=jitter):
        changed = augment.random_color(example, tf.stack([seed, position]), jitter)
        assert changed["other"] is example["other"]
        return changed[schema.IMAGE]

    dataset = tf.data.Dataset.range(20)
    first = np.array(list(dataset.map(lambda p: image(1, p)).as_numpy_iterator()))
    again = np.array(list(dataset.map(lambda p: image(1, p)).as_numpy_iterator()))
    np.testing.assert_array_equal(first, again)
    assert len({one.tobytes() for one in first}) == 20
    eager = image(tf.constant(1, tf.int64), tf.constant(0, tf.int64))
    assert np.abs(eager.numpy().astype(int) - first[0]).max() <= 1
    still = image(tf.constant(1, tf.int64), tf.constant(0, tf.int64), NO_COLOR)
    np.testing.assert_array_equal(still, example[schema.IMAGE])


def test_brightness_is_drawn_from_its_range():
    example = {schema.IMAGE: tf.fill([1, 1, 3], tf.constant(100, tf.uint8))}
    jitter = NO_COLOR._replace(brightness=0.4)
    means = tf.data.Dataset.range(300).map(
        lambda p: augment.random_color(example, tf.stack([np.int64(0), p]), jitter)[schema.IMAGE][
            0, 0, 0
        ]
    )
    means = np.array(list(means.as_numpy_iterator()))
    assert 60 <= means.min() < 63
    assert 137 < means.max() <= 140
    assert abs(means.mean() - 100) < 6  # a standard deviation is 1.3
