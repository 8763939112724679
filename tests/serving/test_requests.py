"""Requests as they come: damaged, huge, empty, mixed; through an exported model."""

import dataclasses
import io
import json
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from mrcnn_tf.images import decoding, reading
from mrcnn_tf.modeling import normalization
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.ops import paste
from mrcnn_tf.serving import detection_status, full_masks, preprocessing, signatures
from mrcnn_tf.serving.detection_status import DONE, TOO_LARGE, UNDECODABLE
from tests.marks import one_quick

RED, GREEN = (255, 0, 0), (0, 255, 0)
FORMATS = {"PNG": {}, "JPEG": {"quality": 95}, "GIF": {}, "BMP": {}, "WEBP": {"quality": 95}}


def encode(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def scenes(draw_rectangles):
    """A landscape, a portrait and a square, on three canvases, with two, one and no rectangle."""
    return [
        draw_rectangles(90, 140, {RED: (10, 20, 50, 60), GREEN: (60, 70, 90, 140)}),
        draw_rectangles(150, 80, {GREEN: (0, 0, 75, 40)}),
        draw_rectangles(64, 64, {}),
    ]


@pytest.fixture(scope="module")
def load(export):
    """Return f(input_type) -> function from a request to NumPy outputs, loaded once each."""
    loaded = {}

    def of(input_type="image_bytes"):
        if input_type not in loaded:
            loaded[input_type] = tf.saved_model.load(str(export(input_type)))
        signature = loaded[input_type].signatures["serving_default"]
        return lambda request: {
            name: value.numpy() for name, value in signature(input_tensor=request).items()
        }

    return of


@pytest.fixture(scope="module")
def serve(load):
    call = load()
    return lambda files: call(tf.constant(files, tf.string))


def check_empty(answer, row):
    for name in answer.keys() - {"image_size", "detection_status"}:
        assert not answer[name][row].any(), name


def check_same(answer, row, expected, expected_row=0):
    for name, value in expected.items():
        np.testing.assert_array_equal(answer[name][row], value[expected_row], err_msg=name)


def png_chunk(kind, data):
    length, checksum = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
    return length + kind + data + checksum


def png(width, height, rows=b"", end=True):
    """A gray PNG with these claims and whatever pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    file += png_chunk(b"IDAT", zlib.compress(rows))
    return file + (png_chunk(b"IEND", b"") if end else b"")


def flip(file, place):
    damaged = bytearray(file)
    damaged[place] ^= 0xFF
    return bytes(damaged)


def damaged_files(pixels):
    good = encode(pixels)
    jpeg = encode(pixels, "JPEG")
    deep = io.BytesIO()
    Image.fromarray(np.full([5, 5], 4000, np.uint16)).save(deep, "PNG")
    tiff = encode(pixels, "TIFF")
    return {
        "nothing": b"",
        "text": b"no image",
        "only a signature": good[:8],
        "PNG without a header's end": good[:30],
        "PNG without its last chunk": good[:-12],
        "PNG with a wrong checksum": flip(good, len(good) - 14),
        "PNG with wrong data": flip(good, len(good) // 2),
        "PNG with a row missing": png(4, 4, b"\0" * 15),
        "PNG of no pixels": png(0, 4),
        "16 bits, all but black": deep.getvalue(),
        "JPEG's first two bytes": jpeg[:2],
        "JPEG without a frame header": jpeg[:100],
        "JPEG cut in its data": jpeg[: len(jpeg) // 2],
        "JPEG without its end": jpeg[:-2],
        "GIF cut": encode(pixels, "GIF")[:500],
        "BMP cut": encode(pixels, "BMP")[:500],
        "WebP cut": encode(pixels, "WEBP")[:200],
        "TIFF": tiff,
    }


def test_damaged_pictures_answer_for_themselves(serve, scenes):
    """All kinds of damage among three good ones, which are answered as if they were alone."""
    damaged = list(damaged_files(scenes[0]).items())
    good = [encode(pixels) for pixels in scenes]
    files = [good[0], *(file for _, file in damaged[:9]), good[1], *(f for _, f in damaged[9:])]
    answer = serve([*files, good[2]])
    places = {0: 0, 10: 1, len(files): 2}
    for row in range(len(files) + 1):
        if row in places:
            assert answer["detection_status"][row] == DONE
            check_same(answer, row, serve([good[places[row]]]))
        else:
            name = damaged[row - 1 - (row > 10)][0]
            assert answer["detection_status"][row] == UNDECODABLE, name
            check_empty(answer, row)
    assert answer["num_detections"][[0, 10, len(files)]].tolist() == [2, 1, 0]
    assert answer["detection_status"].dtype == np.int32


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_at_any_length(serve, scenes, kind):
    """A file is answered if and only if TensorFlow decodes it; the decoder itself is asked."""
    file = encode(scenes[0], kind, **FORMATS[kind])
    lengths = sorted({*range(0, 64, 3), *np.linspace(64, len(file), 40, dtype=int).tolist()})
    cut = [file[:length] for length in lengths]
    answer = serve([*cut, file])
    for row, content in enumerate(cut):
        try:
            decoding.decode_as_stored(tf.constant(content))
            expected = DONE
        except tf.errors.OpError:
            expected = UNDECODABLE
        assert answer["detection_status"][row] == expected, lengths[row]
    assert answer["detection_status"][-1] == DONE
    assert answer["detection_status"][0] == UNDECODABLE
    check_same(answer, -1, serve([file]))


def test_stray_bytes_between_the_segments_of_a_jpeg(serve, scenes):
    """The decoder skips them, and says how large the picture is; bounded all the same."""
    file = encode(scenes[0], "JPEG")
    frame = file.index(b"\xff\xc0")
    stray = file[:frame] + b"stray" + file[frame:]
    huge = bytearray(stray)
    huge[frame + 10 : frame + 14] = struct.pack(">HH", 40_000, 50_000)
    answer = serve([stray, bytes(huge), file])
    assert answer["detection_status"].tolist() == [DONE, TOO_LARGE, DONE]
    assert answer["image_size"][:2].tolist() == [[90, 140], [40_000, 50_000]]
    check_same(answer, 0, answer, 2)


def test_16_bits(serve, scenes):
    """The upper eight bits, unless they show next to nothing."""
    gray = scenes[0].max(axis=2).astype(np.uint16)
    deep = encode(gray * 256 + 77)
    answer = serve([encode(gray * 16), deep, encode(scenes[0].max(axis=2))])
    assert answer["detection_status"].tolist() == [UNDECODABLE, DONE, DONE]
    check_same(answer, 1, answer, 2)


def test_a_gif_whose_first_frame_does_not_fill_it(serve, scenes):
    """Other readers draw it on the whole, TensorFlow does not: no guess is made."""
    gif = bytearray(encode(scenes[0], "GIF"))
    gif[6:10] = struct.pack("<HH", 300, 200)
    answer = serve([bytes(gif)])
    assert answer["detection_status"].tolist() == [UNDECODABLE]
    assert answer["image_size"].tolist() == [[200, 300]]


def test_real_faults(serve, shared):
    """Files after public bug reports: used or refused as `reading.py` does with the same bytes."""
    folder = shared / "data/faults"
    paths = [
        *sorted((folder / "broken_png/images").iterdir()),
        *sorted((folder / "float_and_12bit/images").iterdir()),
        *sorted((folder / "predict_folder").iterdir()),
    ]
    answer = serve([path.read_bytes() for path in paths])
    by_name = dict(zip((p.name for p in paths), answer["detection_status"].tolist(), strict=True))
    usable = {"b.jfif", "exif6.jpg", "noext", "ref.png"}
    for path, row in zip(paths, range(len(paths)), strict=True):
        if path.name in usable:
            assert by_name[path.name] == DONE
            image = reading.read(path)
            assert answer["image_size"][row].tolist() == list(image.pixels.shape[:2])
        elif path.name != "i16.png":
            assert by_name[path.name] == UNDECODABLE, path.name
    with_tensorflow = tf.io.decode_png((folder / "predict_folder/i16.png").read_bytes(), 3)
    assert (by_name["i16.png"] == DONE) == (with_tensorflow.numpy().max() >= 64)


def test_claimed_sizes_are_bounded(serve, scenes):
    """Nothing is decoded that claims too much, whatever is behind the claim."""
    jpeg = bytearray(encode(scenes[0], "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 50_000, 40_000)
    gif = bytearray(encode(scenes[0], "GIF"))
    gif[6:10] = struct.pack("<HH", 50_000, 40_000)
    bmp = bytearray(encode(scenes[0], "BMP"))
    bmp[18:26] = struct.pack("<ii", 50_000, -40_000)
    claims = [png(50_000, 50_000), bytes(jpeg), bytes(gif), bytes(bmp)]
    answer = serve([claims[0], encode(scenes[0]), *claims[1:]])
    assert answer["detection_status"].tolist() == [TOO_LARGE, DONE, *[TOO_LARGE] * 3]
    sizes = answer["image_size"].tolist()
    assert sizes[0] == [50_000, 50_000]
    assert sizes[2:] == [[50_000, 40_000], [40_000, 50_000], [40_000, 50_000]]
    for row in (0, 2, 3, 4):
        check_empty(answer, row)
    check_same(answer, 1, serve([encode(scenes[0])]))
    assert serve([claims[0]])["detection_status"].tolist() == [TOO_LARGE]


@pytest.mark.parametrize("input_type", one_quick(["image_bytes", "tf_example"]))
def test_the_bound_is_what_was_asked_for(tmp_path, detect, labels, preprocess, scenes, input_type):
    signatures.export_saved_model(
        detect,
        str(tmp_path / "m"),
        input_type=input_type,
        label_map=labels,
        # The samples that verify the export have 14,336 pixels.
        preprocess=dataclasses.replace(preprocess, max_image_pixels=15_000),
        mask_convention="pixel_centres",
    )
    model = tf.saved_model.load(str(tmp_path / "m"))
    assert json.loads(model.description().numpy())["max_image_pixels"] == 15_000
    sizes = [(100, 150), (151, 100), (1, 15_000), (15_001, 1), (90, 140)]
    files = [encode(np.zeros([*size, 3], np.uint8)) for size in sizes]
    exif = Image.Exif()
    exif[0x0112] = 6
    files.append(encode(np.zeros([200, 100, 3], np.uint8), exif=exif))
    if input_type == "tf_example":
        files = [preprocessing.encode_example(file) for file in files]
    answer = model(tf.constant(files))
    assert answer["detection_status"].numpy().tolist() == [0, 2, 0, 2, 0, 2]
    assert answer["image_size"].numpy()[[1, 5]].tolist() == [[151, 100], [100, 200]]


def test_damaged_records(load, scenes):
    """No Example, one without an image, one with a damaged image, and a good one."""
    nothing = tf.train.Example().SerializeToString()
    wrong = tf.train.Example(
        features=tf.train.Features(
            feature={"image/encoded": tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))}
        )
    ).SerializeToString()
    good = encode(scenes[0])
    records = [b"\xff\xff", nothing, wrong, *map(preprocessing.encode_example, (good[:-20], good))]
    answer = load("tf_example")(tf.constant(records))
    assert answer["detection_status"].tolist() == [UNDECODABLE] * 4 + [DONE]
    check_same(answer, 4, load()(tf.constant([good])))


def test_image_tensors_are_not_bounded_and_have_pixels(load, scenes):
    call = load("image_tensor")
    answer = call(tf.constant(np.stack([scenes[0]] * 2)))
    assert answer["detection_status"].tolist() == [DONE, DONE]
    with pytest.raises(tf.errors.InvalidArgumentError, match="images without a pixel"):
        call(tf.zeros([2, 0, 5, 3], tf.uint8))


def test_nothing_but_damage(serve):
    answer = serve([b"x", b"y"])
    assert answer["detection_status"].tolist() == [UNDECODABLE] * 2
    assert answer["detection_masks"].shape == (2, 5, 28, 28)
    check_empty(answer, 0)


def test_an_answer_does_not_depend_on_companions(serve, scenes):
    """Every order and company of pictures on three canvases, to the last bit."""
    files = [encode(pixels) for pixels in scenes]
    alone = [serve([file]) for file in files]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 1, 2, 2, 0]):
        together = serve([files[k] for k in order])
        for row, k in enumerate(order):
            check_same(together, row, alone[k])


class GroupNormNetwork:
    """One box, whose score a group norm has had a say in."""

    def __init__(self):
        self.norm = normalization.build("group_norm", 1e-5, 0.9, "norm")

    def __call__(self, images, image_size_hw):
        score = tf.sigmoid(tf.reduce_mean(self.norm(images)[:, 0, 0], axis=-1))[:, tf.newaxis]
        boxes = tf.concat([tf.zeros_like(image_size_hw), image_size_hw], axis=-1)
        ones = tf.ones_like(score, tf.int32)
        return Detections(boxes[:, tf.newaxis], ones, score, ones > 0)


def test_group_norms_do_not_see_companions(preprocess, labels, scenes):
    """Their statistics are over a picture's own canvas, as in training and evaluation."""
    detect = GroupNormNetwork()
    network = signatures.trace(
        signatures.build_network(detect, labels.ids), *signatures.NETWORK_SPECS
    ).get_concrete_function()
    serve = signatures.trace(
        signatures.build_serve(
            network,
            answers=signatures.answers_of(network),
            input_type="image_bytes",
            preprocess=preprocess,
        ),
        signatures.INPUT_SPECS["image_bytes"],
    )
    files = [encode(pixels) for pixels in scenes]
    alone = [float(serve(tf.constant([file]))["detection_scores"][0, 0]) for file in files]
    together = serve(tf.constant(files))["detection_scores"][:, 0].numpy()
    np.testing.assert_array_equal(together, np.float32(alone))
    # One canvas for all of them, on the other hand, would change every score.
    request = preprocess.look_at_image_bytes(tf.constant(files))
    largest_hw = tf.reduce_max(request.canvas_hw, axis=0)
    _, batch = preprocess.load(request, tf.constant([0, 1, 2], tf.int64), largest_hw)
    padded = network(*batch)
    assert (np.abs(padded["detection_scores"][:, 0] - alone) > 1e-3).all()


@pytest.fixture(scope="module")
def with_masks(tmp_path_factory, detect, labels, preprocess):
    """Return f(kind, convention) -> a loaded export that adds such masks, written once each."""
    loaded = {}

    def of(kind, convention="pixel_centres"):
        if (kind, convention) not in loaded:
            path = str(tmp_path_factory.mktemp("masks") / "m")
            signatures.export_saved_model(
                detect,
                path,
                input_type="image_bytes",
                label_map=labels,
                preprocess=preprocess,
                mask_convention=convention,
                added_masks=kind,
            )
            loaded[kind, convention] = tf.saved_model.load(path)
        return loaded[kind, convention]

    return of


def mixed(scenes):
    """Good, damaged, good, good, too large."""
    first, *others = (encode(pixels) for pixels in scenes)
    return [first, b"damaged", *others, png(50_000, 9_000)]


def numpy_masks(answer, row, convention):
    """Run lengths as `predict` makes them of the masks in their boxes."""
    height, width = answer["image_size"][row].tolist()
    count = int(answer["num_detections"][row])
    boxes = answer["detection_boxes"][row, :count] * np.float64([height, width, height, width])
    masks = answer["detection_masks"][row, :count]
    return paste.paste_to_rles(masks, boxes, height, width, convention=convention)


@pytest.mark.parametrize("convention", one_quick(["pixel_centres", "torchvision"]))
def test_run_lengths(with_masks, scenes, convention):
    model = with_masks("run_lengths", convention)
    assert json.loads(model.description().numpy())["added_masks"] == "run_lengths"
    files = mixed(scenes)
    answer = {name: value.numpy() for name, value in model(tf.constant(files)).items()}
    counts = answer[full_masks.COUNTS]
    assert counts.shape == answer["detection_scores"].shape
    for row in range(len(files)):
        expected = [rle["counts"] for rle in numpy_masks(answer, row, convention)]
        assert counts[row].tolist() == expected + [b""] * (5 - len(expected))
    # The left half of the red rectangle.
    decoded = coco_mask.decode({"size": [90, 140], "counts": counts[0, 0]})
    rows, columns = np.nonzero(decoded)
    np.testing.assert_allclose(
        [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1], [10, 20, 50, 40], atol=1
    )
    nothing = model(tf.constant([], tf.string))[full_masks.COUNTS]
    assert nothing.shape == (0, 5)


@pytest.mark.parametrize("convention", one_quick(["pixel_centres", "torchvision"]))
def test_pasted_masks(with_masks, scenes, convention):
    model = with_masks("pasted", convention)
    files = mixed(scenes)
    answer = {name: value.numpy() for name, value in model(tf.constant(files)).items()}
    masks = answer[full_masks.PASTED]
    assert (masks.dtype, masks.shape) == (np.uint8, (5, 2, 150, 140))
    expected = np.zeros_like(masks)
    for row in range(len(files)):
        for k, rle in enumerate(numpy_masks(answer, row, convention)):
            height, width = rle["size"]
            expected[row, k, :height, :width] = coco_mask.decode(rle)
    np.testing.assert_array_equal(masks, expected)
    assert masks[0].any()
    found_nothing = files[3:4]
    for few, shape in (([], (0, 0, 0, 0)), ([b"x"], (1, 0, 0, 0)), (found_nothing, (1, 0, 64, 64))):
        assert model(tf.constant(few, tf.string))[full_masks.PASTED].shape == shape


def test_masks_of_a_network_without(tmp_path, preprocess, labels):
    with pytest.raises(ValueError, match="this network has no masks, so pasted masks cannot be"):
        signatures.export_saved_model(
            GroupNormNetwork(),
            str(tmp_path / "m"),
            input_type="image_bytes",
            label_map=labels,
            preprocess=preprocess,
            mask_convention="pixel_centres",
            added_masks="pasted",
        )
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match=r"'polygons' is not one of \['pasted', 'run_lengths'\]"):
        full_masks.build("polygons", "pixel_centres")


def test_every_status_has_a_meaning():
    assert detection_status.MEANINGS.keys() == {DONE, UNDECODABLE, TOO_LARGE}
