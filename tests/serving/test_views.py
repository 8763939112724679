"""An export that looks at an image in several sizes, for who asks for it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.images import reading
from mrcnn_tf.serving import any_predictor, export_views, predictor, signatures, verification

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture(scope="module")
def views(detect, preprocess):
    """Boxes of the second size, which is half of the usual, in the frame that is asked for."""

    def second(given, frame_hw):
        small = given[1]
        found = detect(small.images, small.image_size_hw)
        ratio = tf.tile(frame_hw / small.image_size_hw, [1, 2])[:, tf.newaxis]
        scores = 0.5 * found.scores * len(given) / 2
        return found._replace(boxes=found.boxes * ratio, scores=scores)

    small = dataclasses.replace(preprocess, short_edge=64, long_edge=100)
    return export_views.Views(second, (preprocess, small))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, detect, labels, preprocess, views):
    path = str(tmp_path_factory.mktemp("views") / "model")
    signatures.export_saved_model(
        detect,
        path,
        input_type="image_bytes",
        label_map=labels,
        preprocess=preprocess,
        mask_convention="pixel_centres",
        views=views,
    )
    return path


def test_who_asks_gets_the_answer_of_all_sizes_and_others_as_ever(exported, draw_rectangles):
    """Images of three shapes: two share all their canvases, and so a call."""
    rectangles = {RED: (20, 40, 60, 100), GREEN: (70, 10, 90, 50)}
    shapes = [(100, 160), (160, 100), (100, 160)]
    rectangles = [{RED: (20, 40, 60, 80)}, {GREEN: (70, 10, 90, 50)}, rectangles]
    images = [draw_rectangles(*shape, r) for shape, r in zip(shapes, rectangles, strict=True)]
    asked = any_predictor.load(any_predictor.WithViews(exported))(images)
    plain = any_predictor.load(exported)(images)
    for ours, theirs, drawn in zip(asked, plain, rectangles, strict=True):
        assert [one.category for one in ours] == [one.category for one in theirs]
        assert [one.score for one in ours] == [one.score / 2 for one in theirs]
        for one, box in zip(ours, drawn.values(), strict=True):
            np.testing.assert_allclose(one.box, box, atol=2.5)  # pixels of half the size


def test_images_share_a_call_only_if_they_share_all_canvases(exported, draw_rectangles):
    detector = predictor.Predictor(exported, tta=True)
    prepared = [
        detector.prepare(reading.UprightImage(draw_rectangles(*shape, {}), None, turned=False))
        for shape in ((100, 160), (160, 100))
    ]
    assert [one.canvas_hw for one in prepared] == [(128, 224, 64, 128), (224, 128, 128, 64)]


def test_an_export_without_says_so(export):
    path = str(export("image_bytes"))
    with pytest.raises(ValueError, match="was exported without test-time augmentation: export it"):
        predictor.Predictor(path, tta=True)


def test_what_answers_otherwise_is_no_export(exported, views, labels):
    def other(given, frame_hw):
        found = views.detect(given, frame_hw)
        everything = tf.constant([0.0, 0.0, 50.0, 50.0]) + tf.zeros_like(found.boxes)
        return found._replace(
            boxes=everything,
            scores=tf.ones_like(found.scores),
            valid=tf.ones_like(found.valid),
        )

    changed = dataclasses.replace(views, detect=other)
    views.verify(exported, labels.ids)
    with pytest.raises(verification.VerificationError, match="with test-time augmentation only"):
        changed.verify(exported, labels.ids)
