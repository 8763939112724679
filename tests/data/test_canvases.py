"""canvases.py: every image has a canvas, and no larger one than it needs."""

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import canvases, preprocess

MULTI_SCALE = (640, 672, 704, 736, 768, 800)


def test_the_papers_canvases():
    assert canvases.make((800,), 1333) == ((800, 1088), (1088, 800), (800, 1344), (1344, 800))


def test_square_and_multi_scale_canvases():
    assert canvases.make((1024,), 1024) == ((768, 1024), (1024, 768), (1024, 1024))
    multi = canvases.make(MULTI_SCALE, 1333)
    assert len(multi) == 12
    assert set(canvases.make((800,), 1333)) <= set(multi)
    areas = [h * w for h, w in multi]
    assert areas == sorted(areas)


def test_one_square_canvas_for_jittered_images():
    assert canvases.square(1024) == ((1024, 1024),)
    assert canvases.square(1000) == ((1024, 1024),)


@pytest.mark.parametrize("convention", preprocess.CONVENTIONS)
@pytest.mark.parametrize(
    ("short_edges", "long_edge"),
    [
        ((800,), 1333),
        (MULTI_SCALE, 1333),
        (tuple(range(400, 1201, 8)), 1400),
        ((1024,), 1024),
        ((128,), 128),
        ((100, 37), 150),
        ((768,), 1024),
        ((600,), 1000),
        ((33,), 10_000),
    ],
)
def test_any_resized_size_fits_a_canvas(short_edges, long_edge, convention):
    sizes = canvases.make(short_edges, long_edge)
    rng = np.random.default_rng(0)
    aspects = np.concatenate([np.linspace(1, 3, 800), np.geomspace(1, 3000, 100), [4 / 3, 16 / 9]])
    shorts = rng.integers(1, 3000, len(aspects))
    originals = np.stack([shorts, np.maximum(shorts, np.round(shorts * aspects))], axis=1)
    originals = np.concatenate([originals, originals[:, ::-1]])
    edges = rng.choice(short_edges, len(originals))

    resized = preprocess.resized_size_hw(
        tf.constant(originals, tf.int32), edges[:, None], long_edge, convention
    )
    chosen = canvases.choose(resized, sizes)  # raises if there is none
    assert (resized.numpy() >= 1).all()
    fits = (resized.numpy()[:, None] <= np.array(sizes)).all(axis=-1)
    smallest = [
        min((s for s, fit in zip(sizes, row, strict=True) if fit), key=np.prod) for row in fits
    ]
    np.testing.assert_array_equal(np.prod(chosen, axis=1), np.prod(smallest, axis=1))
    assert fits[np.arange(len(fits)), [sizes.index(tuple(c)) for c in chosen.numpy()]].all()


def test_exact_canvas():
    rounded = canvases.round_up(tf.constant([[1, 32], [33, 800]]))
    np.testing.assert_array_equal(rounded, [[32, 32], [64, 800]])


def test_image_that_fits_no_canvas_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="no canvas"):
        canvases.choose(tf.constant([801, 100]), ((800, 1088),))
