"""Requests of unequal images, against the data path's own functions one image at a time."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mrcnn_tf.data import canvases, schema
from mrcnn_tf.data import preprocess as data_preprocess
from mrcnn_tf.images import decoding
from mrcnn_tf.serving import encoded_files, preprocessing, signatures


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def image(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def example(file: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
    features = tf.train.Features(feature={schema.IMAGE_ENCODED: feature})
    return tf.train.Example(features=features).SerializeToString()


def load_all(preprocess, look, given):
    """Load all images of a request onto one canvas, the smallest that holds them."""
    request = look(given)
    rows = tf.range(tf.size(request.status, tf.int64))
    canvas_hw = tf.reduce_max(request.canvas_hw, axis=0)
    loaded, batch = preprocess.load(request, rows, canvas_hw)
    tf.debugging.assert_equal(loaded, rows)
    return batch


FORMATS = {
    "png": encode(image(7, 5), "PNG"),
    "png gray": encode(image(7, 5).convert("L"), "PNG"),
    "png gray alpha": encode(image(7, 5).convert("LA"), "PNG"),
    "png alpha": encode(image(7, 5).convert("RGBA"), "PNG"),
    "png palette": encode(image(7, 5).convert("P"), "PNG"),
    "bmp": encode(image(7, 5), "BMP"),
    "bmp gray": encode(image(7, 5).convert("L"), "BMP"),
    "gif": encode(image(7, 5), "GIF"),
    "gif animated": encode(image(7, 5), "GIF", save_all=True, append_images=[image(7, 5, 1)]),
    "webp": encode(image(7, 5), "WEBP", lossless=True),
    "jpeg": encode(image(70, 50), "JPEG", quality=80),
    "jpeg gray": encode(image(70, 50).convert("L"), "JPEG"),
}


@pytest.mark.parametrize("file", FORMATS.values(), ids=FORMATS.keys())
def test_decodes_bit_equal_to_pillow(file):
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    decoded = tf.function(decoding.decode_as_stored)(tf.constant(file))
    np.testing.assert_array_equal(decoded, expected)


def test_cmyk_and_16_bits():
    cmyk = encode(image(40, 30).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"), np.int32)
    decoded = decoding.decode_as_stored(tf.constant(cmyk)).numpy()
    assert abs(decoded - expected).max() <= 2  # two ways to multiply with black
    deep = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    decoded = decoding.decode_as_stored(tf.constant(encode(Image.fromarray(deep), "PNG")))
    np.testing.assert_array_equal(decoded[..., 1], deep >> 8)


def test_not_a_image():
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.decode_as_stored(tf.constant(b"no image"))


@pytest.mark.parametrize("convention", data_preprocess.CONVENTIONS)
def test_unequal_images_equal_the_data_path(convention):
    prepare = preprocessing.Preprocessor(
        short_edge=64,
        long_edge=100,
        resize_convention=convention,
        channel_order="bgr",
        pixel_mean=(103.5, 116.25, 123.75),
        pixel_std=(57.0, 58.0, 59.0),
    )
    images = [image(90, 120, 1), image(30, 20, 2), image(1, 1, 3), image(300, 10, 4)]
    # By hand: 64/90 * 120 = 85.3; 2/3 is 96 x 64; 1 x 1 fills the square; 300 x 10 is cut at 100.
    sizes = [[64, 85], [96, 64], [64, 64], [100, 3]]
    files = tf.constant([encode(p, "PNG") for p in images])
    batch = tf.function(load_all)(prepare, prepare.look_at_image_bytes, files)
    assert batch.images.shape == [4, 128, 96, 3]
    np.testing.assert_array_equal(batch.image_size_hw, np.float32(sizes))
    np.testing.assert_array_equal(batch.original_size_hw, [[90, 120], [30, 20], [1, 1], [300, 10]])
    for row, (height, width) in enumerate(sizes):
        expected = data_preprocess.prepare_image(
            tf.constant(np.asarray(images[row])),
            tf.constant([height, width]),
            tf.constant([128, 96]),
            convention=convention,
            channel_order="bgr",
            pixel_mean=(103.5, 116.25, 123.75),
            pixel_std=(57.0, 58.0, 59.0),
        ).numpy()
        np.testing.assert_allclose(batch.images[row], expected, atol=1e-5)
        assert not batch.images[row, height:].numpy().any()
        assert not batch.images[row, :, width:].numpy().any()
        assert batch.images[row, :height, :width].numpy().any()


def test_padded_as_in_evaluation(preprocess):
    """On the canvases of 64/100, (64, 96), (64, 128) and transposes, each on its own."""
    as_evaluated = dataclasses.replace(preprocess, short_edge=64, long_edge=100)
    as_evaluated = dataclasses.replace(as_evaluated, canvas_sizes=canvases.make((64,), 100))
    files = tf.constant([encode(image(*hw), "PNG") for hw in ((50, 50), (50, 90), (90, 60))])
    request = as_evaluated.look_at_image_bytes(files)
    np.testing.assert_array_equal(request.canvas_hw, [(64, 96), (64, 128), (96, 64)])
    exact = dataclasses.replace(as_evaluated, canvas_sizes=None)
    request = exact.look_at_image_bytes(files)
    np.testing.assert_array_equal(request.canvas_hw, [(64, 64), (64, 128), (96, 64)])
    rows, tall = exact.load(request, tf.constant([2], tf.int64), tf.constant([96, 64]))
    np.testing.assert_array_equal(rows, [2])
    assert tall.images.shape == (1, 96, 64, 3)
    np.testing.assert_array_equal(tall.image_size_hw, [[96, 64]])
    np.testing.assert_array_equal(tall.original_size_hw, [[90, 60]])


def test_more_than_are_decoded_at_a_time(preprocess):
    """In their order, also where some of them turn out to be damaged."""
    count = 2 * encoded_files.PARALLEL
    files = [encode(image(20, 30, seed), "PNG") for seed in range(count)]
    damaged = [0, 5, len(files) - 3]
    broken = [file[:-20] if k in damaged else file for k, file in enumerate(files)]
    request = preprocess.look_at_image_bytes(tf.constant(broken))
    rows = tf.range(len(files), dtype=tf.int64)
    loaded, batch = preprocess.load(request, rows, request.canvas_hw[0])
    np.testing.assert_array_equal(loaded, np.setdiff1d(rows, damaged))
    whole = load_all(preprocess, preprocess.look_at_image_bytes, tf.constant(files))
    np.testing.assert_array_equal(batch.images, whole.images.numpy()[loaded])


def test_eager_is_the_same(preprocess):
    files = tf.constant([encode(image(40, 60), "PNG"), encode(image(60, 40, 1), "JPEG")])
    eager = load_all(preprocess, preprocess.look_at_image_bytes, files)
    graph = tf.function(load_all)(preprocess, preprocess.look_at_image_bytes, files)
    for a, b in zip(eager, graph, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_three_kinds_of_input_agree(preprocess):
    images = [image(50, 75, seed) for seed in (1, 2, 3)]
    files = [encode(p, "PNG") for p in images]
    examples = [example(f) for f in files]
    from_bytes = load_all(preprocess, preprocess.look_at_image_bytes, tf.constant(files))
    from_examples = load_all(preprocess, preprocess.look_at_tf_example, tf.constant(examples))
    stacked = tf.constant(np.stack(images))
    from_tensor = load_all(preprocess, preprocess.look_at_image_tensor, stacked)
    assert from_bytes.images.shape == [3, 128, 192, 3]
    for other in (from_examples, from_tensor):
        for a, b in zip(from_bytes, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_jpeg_is_decoded_as_for_training(preprocess, shared):
    """A real photo, decoded by the record decoder's call, gives the same network input."""
    path = sorted((shared / "data/fruits_nuts").rglob("*.jpg"))[0]
    file = path.read_bytes()
    as_trained = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(decoding.decode_as_stored(tf.constant(file)), as_trained)


@pytest.mark.parametrize("convention", data_preprocess.CONVENTIONS)
def test_one_by_one_and_put_together_is_the_same(preprocess, convention):
    """To the last bit, whether an image is enlarged, shrunk or padded to another one's canvas."""
    own = dataclasses.replace(preprocess, resize_convention=convention)
    own = dataclasses.replace(own, canvas_sizes=canvases.make((128,), 200))
    images = [np.asarray(image(*hw, seed=3)) for hw in ((50, 75), (400, 300), (128, 128), (9, 90))]
    from_pixels = signatures.trace(own.from_pixels, signatures.PIXELS_SPEC)
    prepared = [from_pixels(tf.constant(pixels)) for pixels in images]
    assert [one.images.shape[:2] for one in prepared] == [
        (128, 192), (192, 128), (128, 192), (128, 224),
    ]  # fmt: skip
    files = tf.constant([encode(Image.fromarray(pixels), "PNG") for pixels in images])
    expected = tf.function(load_all)(own, own.look_at_image_bytes, files)
    for ours, theirs in zip(preprocessing.stack(prepared), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    spec = signatures.INPUT_SPECS["image_tensor"]
    from_image_tensor = signatures.trace(
        lambda images: load_all(own, own.look_at_image_tensor, images), spec
    )
    for one, pixels in zip(prepared, images, strict=True):
        alone = from_image_tensor(tf.constant(pixels[np.newaxis]))
        for ours, theirs in zip(preprocessing.stack([one]), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)
