"""What a file says itself of anchors and pixels; and where an experiment contradicts it."""

import ml_dtypes
import numpy as np
import pytest

from mrcnn_tf.experiment import fields, presets
from mrcnn_tf.weights import comparison, conventions, evidence, recognize
from tests.weights import foreign_shapes as foreign

SIZES, RATIOS = (32.0, 64.0, 128.0, 256.0, 512.0), (0.5, 1.0, 2.0)


def pixels(mean, std=(1, 1, 1)):
    return evidence.told(foreign.detectron2_buffers(mean=mean, std=std), "fpn")["pixels"]


def anchors(boxes, features="fpn"):
    name = "proposal_generator.anchor_generator.cell_anchors"
    state = {f"{name}.{level}": np.asarray(level_boxes) for level, level_boxes in enumerate(boxes)}
    return evidence.told(state, features)["rpn"]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("sizes", "ratios"),
    [
        (SIZES, RATIOS),
        ((8, 16, 32, 64, 128), (0.5, 1, 2)),
        ((12.5, 20, 40, 100, 300), (0.25, 1, 3)),
        ((16, 32, 64, 128, 256), (1,)),
    ],
)
def test_sizes_and_ratios_come_back(sizes, ratios, kind):
    boxes = [b for n, b in foreign.detectron2_buffers(sizes, ratios).items() if "anchors" in n]
    got = anchors([box.astype(kind) for box in boxes])
    assert got == {"anchor_sizes": list(sizes), "anchor_ratios": list(ratios)}


def test_anchors_worked_by_hand():
    """32 x 64 and 64 x 32 have the area of 45.2548 squared, and the ratios 2 and 1/2."""
    level = np.float32([[-16, -32, 16, 32], [-32, -16, 32, 16]])
    got = anchors([level] * 5)
    np.testing.assert_allclose(got["anchor_sizes"], [45.2548] * 5, rtol=1e-5)
    assert got["anchor_ratios"] == [2.0, 0.5]


def test_anchors_of_c4_are_all_at_one_place():
    boxes = foreign.detectron2_buffers()
    level = np.concatenate([b for n, b in boxes.items() if "anchors" in n])
    assert anchors([level], "c4") == {"anchor_sizes": list(SIZES), "anchor_ratios": list(RATIOS)}


def square(size):
    return [-size / 2, -size / 2, size / 2, size / 2]


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ([[square(8)]] * 4, "anchors on 4 levels; FPN has 5"),
        ([[square(8), square(16)]] * 5, "not one size per level with the same ratios"),
        ([[square(8)]] * 4 + [[[-4, -8, 4, 8]]], "on level 4.* not one size per level"),
        ([[[0, 0, 8, 8]]] * 5, "not one size per level with the same ratios on all, centred"),
        ([[[0, 0, 8, 8, 30]]] * 5, "rotated"),
        ([[[4, 4, -4, -4]]] * 5, "no extent"),
        ([[[-np.inf, -1, np.inf, 1]]] * 5, "no extent"),
        ([np.zeros([0, 4])] * 5, "no boxes of four numbers"),
    ],
)
def test_anchors_that_no_network_here_has(boxes, said):
    with pytest.raises(ValueError, match=said):
        anchors(boxes)


CAFFE_BGR, IMAGENET_RGB = (103.53, 116.28, 123.675), (123.675, 116.28, 103.53)
ONES, DEVIATION_RGB = (1, 1, 1), (58.395, 57.12, 57.375)


@pytest.mark.parametrize(
    ("mean", "std", "want"),
    [
        (CAFFE_BGR, ONES, ("bgr", CAFFE_BGR, ONES)),
        ((102.9801, 115.9465, 122.7717), ONES, ("bgr", (102.9801, 115.9465, 122.7717), ONES)),
        (IMAGENET_RGB, DEVIATION_RGB, ("rgb", IMAGENET_RGB, DEVIATION_RGB)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), ("rgb", IMAGENET_RGB, DEVIATION_RGB)),
        (
            (0.406, 0.456, 0.485),
            (0.225, 0.224, 0.229),
            ("bgr", CAFFE_BGR, (57.375, 57.12, 58.395)),
        ),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (None, (127.5,) * 3, (127.5,) * 3)),
        ((90, 80, 70), ONES, (None, (90, 80, 70), ONES)),
        ((0, 0, 0), ONES, (None, (0, 0, 0), ONES)),
        ((0, 0, 0), (255, 255, 255), (None, (0, 0, 0), (255, 255, 255))),
    ],
)
def test_pixels(mean, std, want):
    got = pixels(mean, std)
    order, want_mean, want_std = want
    assert got.get("order") == order
    np.testing.assert_allclose(got["mean"], want_mean, rtol=1e-6)
    np.testing.assert_allclose(got["std"], want_std, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("mean", [IMAGENET_RGB, CAFFE_BGR, (0.485, 0.456, 0.406)])
def test_known_pixels_in_half_precision(mean, kind):
    rounded = np.array(mean).astype(kind)
    got = evidence.told({"pixel_mean": rounded, "pixel_std": np.ones(3, kind)}, "fpn")["pixels"]
    scale = 255 if mean[0] < 1 else 1
    np.testing.assert_allclose(got["mean"], scale * np.array(mean), rtol=1e-12)


@pytest.mark.parametrize("std", [(0, 1, 1), (-1, 1, 1), (np.nan, 1, 1), (np.inf, 1, 1)])
def test_deviations_that_are_none(std):
    with pytest.raises(ValueError, match="its pixel statistics are none"):
        pixels((103.53, 116.28, 123.675), std)


def test_images_of_one_channel():
    with pytest.raises(ValueError, match="have 1 channels"):
        evidence.told({"pixel_mean": np.float32([100]), "pixel_std": np.float32([1])}, "fpn")


def recognized(depth=50, **buffers):
    shapes = foreign.detectron2(foreign.small(depth=depth), classes=3)
    state = {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}
    return recognize.recognize(state | foreign.detectron2_buffers(**buffers))


def model_of(found):
    needed, notes = conventions.model_fields(found)
    model = fields.Model()
    model.override(presets.PRESETS[needed["preset"]])
    model.override(needed)
    return model, notes


def test_a_files_own_word_becomes_the_experiment():
    found = recognized(
        sizes=(8, 16, 32, 64, 128), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    )
    model, notes = model_of(found)
    assert tuple(model.rpn.anchor_sizes) == (8, 16, 32, 64, 128)
    assert model.pixels.order == "rgb"
    assert tuple(model.pixels.mean) == (123.675, 116.28, 103.53)
    assert not model.backbone.stride_in_1x1  # such pixels go with PyTorch's ResNets
    assert "anchors from the file: sizes 8, 16, 32, 64, 128, ratios 0.5, 1, 2" in notes
    assert any("in RGB, in which these are ImageNet's" in n for n in notes)
    assert any("stride in the 3x3" in n for n in notes)
    assert model.rpn.pre_nms_top_k_train == 2000  # Detectron2's, beside them


def test_a_files_own_word_that_is_the_projects_changes_nothing():
    with_it, _ = model_of(recognized())
    shapes = foreign.detectron2(foreign.small(depth=50), classes=3)
    found = recognize.recognize({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()})
    without, notes = model_of(found)
    assert comparison.differences(with_it.as_dict(), without.as_dict()) == ([], [])
    assert any("the file does not hold its anchors" in note for note in notes)


def test_an_order_that_the_means_do_not_tell_is_said():
    model, notes = model_of(recognized(mean=(90, 80, 70)))
    assert model.pixels.order == "bgr"
    assert any("order cannot be told" in n and "pixels.order=rgb" in n for n in notes)


def test_contradictions_are_named():
    found = recognized(sizes=(8, 16, 32, 64, 128))
    model, _ = model_of(found)
    assert comparison.contradictions(found, model.as_dict()) == []
    model.override({"rpn": {"anchor_sizes": list(SIZES)}, "pixels": {"order": "rgb"}})
    assert comparison.contradictions(found, model.as_dict()) == [
        "task.model.pixels.order is 'rgb', but the file says 'bgr'",
        "task.model.rpn.anchor_sizes is [32.0, 64.0, 128.0, 256.0, 512.0], but the file says "
        "[8.0, 16.0, 32.0, 64.0, 128.0]",
    ]


def test_another_number_of_anchors():
    shapes = foreign.torchvision(foreign.small(), outputs=4)
    shapes |= {"rpn.head.cls_logits.weight": (5, 8, 1, 1), "rpn.head.cls_logits.bias": (5,)}
    found = recognize.recognize({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()})
    model, _ = model_of(found)
    with pytest.raises(ValueError, match="5 anchors at every place, the experiment 3 .*0.5, 1, 2"):
        comparison.check_anchors(found, model.as_dict())
    model.override({"rpn": {"anchor_ratios": [0.25, 0.5, 1.0, 2.0, 4.0]}})
    comparison.check_anchors(found, model.as_dict())


def test_norms_of_torchvision_that_count_are_trained_ones():
    shapes = foreign.torchvision(foreign.small(), outputs=4)
    shapes |= {"backbone.body.bn1.num_batches_tracked": ()}
    found = recognize.recognize({n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()})
    model, notes = model_of(found)
    assert (model.backbone.norm, model.backbone.norm_epsilon) == ("batch_norm", 1e-5)
    assert any("norm epsilon 1e-5 and norms that train" in note for note in notes)
