"""Exports a small real network of known answers and reads it as a client would."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mrcnn_tf.data import label_map
from mrcnn_tf.modeling.detections import Detections
from mrcnn_tf.serving import preprocessing, signatures, verification

# No client needs anything but stock TensorFlow; these do not compile or convert elsewhere.
BANNED_OPS = {"CropAndResize", "CombinedNonMaxSuppression", "PyFunc", "EagerPyFunc"}


@pytest.fixture(scope="module")
def exported(export):
    return export("image_bytes")


@pytest.fixture
def write(detect, labels, preprocess):
    """Return f(path, **what is different from the usual) -> Verification."""

    def export(path, detect=detect, input_type="image_bytes"):
        return signatures.export_saved_model(
            detect,
            str(path),
            input_type=input_type,
            label_map=labels,
            preprocess=preprocess,
            mask_convention="pixel_centres",
        )

    return export


@pytest.fixture(scope="module")
def scenes(draw_rectangles):
    """Three sizes; expected boxes in pixels, red then green."""
    truths = [
        (90, 140, {(255, 0, 0): (10, 20, 50, 60), (0, 255, 0): (60, 70, 90, 140)}),
        (300, 100, {(0, 255, 0): (0, 0, 150, 50)}),
        (64, 64, {}),
    ]
    return [(draw_rectangles(*t), t[2]) for t in truths]


def encode_png(pixels):
    return tf.io.encode_png(pixels).numpy()


def check_answer(answer, row, pixels, truth, labels):
    """The rectangles come back where they were drawn, in fractions of the original image."""
    height, width = pixels.shape[:2]
    expected = [truth[c] for c in ((255, 0, 0), (0, 255, 0)) if c in truth]
    ids = [i for c, i in zip(((255, 0, 0), (0, 255, 0)), labels.ids, strict=True) if c in truth]
    scores = [s for c, s in (((255, 0, 0), 0.75), ((0, 255, 0), 0.5)) if c in truth]
    assert answer["num_detections"][row] == len(expected)
    boxes = np.reshape(expected, [-1, 4]) / np.array([height, width, height, width])
    found = answer["detection_boxes"][row, : len(expected)]
    # One pixel of the network input: the rectangle's edge is found at whole pixels only.
    np.testing.assert_allclose(found, boxes, atol=1.01 / 66)
    np.testing.assert_array_equal(answer["detection_class_ids"][row, : len(expected)], ids)
    np.testing.assert_allclose(answer["detection_scores"][row, : len(expected)], scores)
    np.testing.assert_array_equal(answer["image_size"][row], [height, width])
    per_image = {"num_detections", "image_size", "detection_status"}
    for name in set(answer) - per_image:
        assert not answer[name][row, len(expected) :].any(), name


def test_unequal_images_in_one_request(exported, scenes, labels):
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    files = tf.constant([encode_png(pixels) for pixels, _ in scenes])
    answer = {k: v.numpy() for k, v in signature(input_tensor=files).items()}
    assert answer["detection_masks"].shape == (3, 5, 28, 28)
    for row, (pixels, truth) in enumerate(scenes):
        check_answer(answer, row, pixels, truth, labels)
    mask = answer["detection_masks"][0, 0]
    assert mask[:, :14].min() == 1.0
    assert mask[:, 14:].max() == 0.0


def test_any_batch_size_and_order(exported, scenes):
    """An image's answer does not depend on its companions."""
    call = tf.saved_model.load(str(exported))  # the Object Detection API's clients call it so
    files = [encode_png(pixels) for pixels, _ in scenes]
    together = call(tf.constant(files[::-1]))
    for row, file in enumerate(files[::-1]):
        alone = call(tf.constant([file]))
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][row], atol=1e-6, err_msg=name)


@pytest.mark.parametrize("input_type", ["image_tensor", "tf_example"])
def test_other_input_types(export, scenes, labels, input_type):
    signature = tf.saved_model.load(str(export(input_type))).signatures["serving_default"]
    pixels, truth = scenes[0]
    request = np.stack([pixels, pixels])
    if input_type == "tf_example":
        request = [preprocessing.encode_example(encode_png(pixels))] * 2
    answer = {k: v.numpy() for k, v in signature(input_tensor=tf.constant(request)).items()}
    for row in range(2):
        check_answer(answer, row, pixels, truth, labels)


@pytest.mark.parametrize("input_type", ["image_bytes", "image_tensor", "tf_example"])
def test_a_request_of_length_0(export, scenes, input_type):
    """An answer of the same outputs, types and ranks, with nothing in it."""
    signature = tf.saved_model.load(str(export(input_type))).signatures["serving_default"]
    pixels = scenes[0][0]
    one = {
        "image_bytes": [encode_png(pixels)],
        "image_tensor": pixels[np.newaxis],
        "tf_example": [preprocessing.encode_example(encode_png(pixels))],
    }[input_type]
    expected = signature(input_tensor=tf.constant(one))
    nothing = [tf.constant(one)[:0]]
    if input_type == "image_tensor":
        nothing.append(tf.zeros([0, 0, 0, 3], tf.uint8))
    for request in nothing:
        answer = signature(input_tensor=request)
        assert answer.keys() == expected.keys()
        for name, value in expected.items():
            assert answer[name].dtype == value.dtype
            assert answer[name].shape == (0, *value.shape[1:]), name


def test_signature_and_assets(exported, labels):
    loaded = tf.saved_model.load(str(exported))
    assert sorted(loaded.signatures) == ["describe", "serving_default"]
    signature = loaded.signatures["serving_default"]
    assert signature.structured_input_signature == (
        (),
        {"input_tensor": tf.TensorSpec([None], tf.string, "input_tensor")},
    )
    text = (exported / "assets/label_map.json").read_text(encoding="utf-8")
    assert label_map.LabelMap.from_json(text) == labels
    assert loaded.label_map.asset_path.numpy().decode() == str(exported / "assets/label_map.json")
    description = json.loads(loaded.description().numpy())
    assert description["input_type"] == "image_bytes"
    assert description["mask_convention"] == "pixel_centres"
    assert label_map.LabelMap.from_json(json.dumps(description)) == labels


@pytest.mark.parametrize("input_type", ["image_bytes", "image_tensor", "tf_example"])
def test_pixels_that_python_has_decoded(export, scenes, labels, input_type):
    """Every export answers them, to the last bit as it answers one file after the other."""
    loaded = tf.saved_model.load(str(export(input_type)))
    files = tf.saved_model.load(str(export("image_bytes")))
    for pixels, truth in scenes:
        prepared = preprocessing.NetworkInput(*loaded.prepare(tf.constant(pixels)))
        answer = {k: v.numpy() for k, v in loaded.network(*preprocessing.stack([prepared])).items()}
        check_answer(answer, 0, pixels, truth, labels)
        expected = files(tf.constant([encode_png(pixels)]))
        assert expected.pop("detection_status").numpy() == [0]
        assert answer.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(answer[name], value, err_msg=name)


def test_the_network_is_in_the_file_once(exported):
    """What decodes, and what is called with pixels, call one function."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    networks = [f for f in functions if any(node.op == "ArgMax" for node in f.node_def)]
    assert len(networks) == 1


def test_only_stock_operations(exported):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    ops |= {node.op for function in graph.library.function for node in function.node_def}
    assert "DecodeImage" in ops
    assert not ops & BANNED_OPS
    functions = {function.signature.name for function in graph.library.function}
    registered = set(dir(tf.raw_ops))
    assert ops - functions <= registered


@pytest.mark.slow
def test_loads_with_tensorflow_alone(exported, scenes, tmp_path):
    """In a fresh interpreter that refuses tf_keras, tf-models-official and this package."""
    (tmp_path / "image.png").write_bytes(encode_png(scenes[0][0]))
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tf_keras", "official", "mrcnn_tf"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import tensorflow as tf
model = tf.saved_model.load({str(exported)!r})
file = open({str(tmp_path / "image.png")!r}, "rb").read()
answer = model.signatures["serving_default"](input_tensor=tf.constant([file]))
print("found", int(answer["num_detections"][0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "found 2" in done.stdout


@pytest.mark.slow
def test_replaces_an_export_and_nothing_else(tmp_path, write):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"holds files but no SavedModel \(mine.txt"):
        write(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        write(tmp_path / "mine.txt")
    write(tmp_path / "m")
    (tmp_path / "m/left_over").write_text("")
    write(f"{tmp_path}/m/")
    assert not (tmp_path / "m/left_over").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "mine.txt"]


def test_unknown_input_type(tmp_path, write):
    with pytest.raises(ValueError, match=r"input_type: 'jpeg' is not one of \['image_bytes'"):
        write(tmp_path / "m", input_type="jpeg")


def test_export_that_answers_differently_is_refused(tmp_path, detect, write, monkeypatch):
    """A detector that behaves otherwise inside a graph, as a leaked constant would."""
    monkeypatch.setattr(verification, "sample_request", lambda input_type: red_request())

    def shifted(images, image_size_hw):
        found = detect(images, image_size_hw)
        return found if tf.executing_eagerly() else found._replace(boxes=found.boxes + 4.0)

    with pytest.raises(verification.VerificationError, match="only 0.0% of them are the same"):
        write(tmp_path / "m", detect=shifted)
    assert not (tmp_path / "m").exists()
    assert write(tmp_path / "m").num_detections == 1


def red_request():
    image = np.zeros([60, 60, 3], np.uint8)
    image[10:30, 10:40] = (255, 0, 0)
    return tf.constant([encode_png(image)])


def test_variables_of_mixed_precision_layers(tmp_path, write):
    """Keras wraps their variables; the SavedModel holds the float32 values."""
    previous = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = tf_keras.layers.Conv2D(5, 32, 32)
        layer.build([None, None, None, 3])
    finally:
        tf_keras.mixed_precision.set_global_policy(previous)

    def detect(images, image_size_hw):
        logits = tf.cast(tf.reduce_mean(layer(images), [1, 2]), tf.float32)  # [B, 5]
        boxes = tf.concat([tf.zeros_like(image_size_hw), image_size_hw], -1)[:, tf.newaxis]
        ones = tf.ones_like(logits, tf.int32)
        boxes *= tf.cast(ones, tf.float32)[..., tf.newaxis]
        return Detections(boxes, ones, tf.sigmoid(logits), ones > 0)

    found = write(tmp_path / "m", detect)
    assert found.num_detections == 10
    assert found.matched_fraction == 1.0
    variables = tf.saved_model.load(str(tmp_path / "m")).model_variables
    assert [v.dtype for v in variables] == [tf.float32, tf.float32]
