import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import sampling

KEYS = tf.constant([5, -7, 2**31 - 1], tf.int32)


def seeds_of(step=3, keys=KEYS, stream=0, seed=7):
    return sampling.image_seeds(seed, step, keys, stream)


def candidates(seed, num_candidates, positive, negative, num_images=3):
    draw = np.random.default_rng(seed).random([num_images, num_candidates])
    return draw < positive, draw > 1 - negative


def check_invariants(drawn, is_positive, is_negative, num_samples):
    """No candidate twice, every sample of its kind, positives before negatives before padding."""
    index, positive, valid = (t.numpy() for t in drawn)
    assert index.shape == (len(is_positive), num_samples)
    for b in range(len(is_positive)):
        taken = index[b][valid[b]]
        assert len(set(taken)) == len(taken)
        np.testing.assert_array_equal(is_positive[b][taken], positive[b][valid[b]])
        np.testing.assert_array_equal(is_negative[b][taken], ~positive[b][valid[b]])
        kinds = np.where(positive[b], 0, np.where(valid[b], 1, 2))
        np.testing.assert_array_equal(kinds, np.sort(kinds))
        assert (index[b][~valid[b]] == 0).all()
        assert not positive[b][~valid[b]].any()


@pytest.mark.parametrize(
    ("positives", "negatives", "drawn_positives", "drawn_negatives"),
    [
        (400, 4000, 128, 128),  # plenty of both: half and half
        (30, 4000, 30, 226),  # few positives: negatives fill up
        (0, 4000, 0, 256),
        (400, 50, 128, 50),  # few negatives: positives do not exceed their half
        (0, 0, 0, 0),
        (300, 0, 128, 0),
    ],
)
def test_counts_of_the_rpn_rule(positives, negatives, drawn_positives, drawn_negatives):
    order = np.random.default_rng(0).permutation(5000)
    is_positive, is_negative = np.zeros([2, 1, 5000], bool)
    is_positive[0, order[:positives]] = True
    is_negative[0, order[positives : positives + negatives]] = True
    drawn = sampling.sample(is_positive, is_negative, 256, 0.5, seeds_of(keys=KEYS[:1]))
    assert drawn.is_positive.numpy().sum() == drawn_positives
    assert drawn.valid.numpy().sum() == drawn_positives + drawn_negatives
    check_invariants(drawn, is_positive, is_negative, 256)


def test_roi_rule_is_one_to_three_and_rounds_down():
    is_positive, is_negative = candidates(1, 2000, 0.3, 0.7)
    drawn = sampling.sample(is_positive, is_negative, 510, 0.25, seeds_of())
    np.testing.assert_array_equal(drawn.is_positive.numpy().sum(1), [127] * 3)
    assert drawn.valid.numpy().all()
    check_invariants(drawn, is_positive, is_negative, 510)


@pytest.mark.parametrize("num_samples", [50, 64, 1000])
def test_takes_all_when_there_are_no_more_candidates_than_samples(num_samples):
    is_positive, is_negative = candidates(2, 50, 0.8, 0.15)
    drawn = sampling.sample(is_positive, is_negative, num_samples, 1.0, seeds_of())
    np.testing.assert_array_equal(drawn.is_positive.numpy().sum(1), is_positive.sum(1))
    np.testing.assert_array_equal(drawn.valid.numpy().sum(1), (is_positive | is_negative).sum(1))
    check_invariants(drawn, is_positive, is_negative, num_samples)


def test_no_candidates():
    none = tf.zeros([3, 0], tf.bool)
    drawn = sampling.sample(none, none, 8, 0.5, seeds_of())
    assert drawn.index.shape == (3, 8)
    assert not drawn.valid.numpy().any()


@pytest.mark.parametrize("num_candidates", [20, 3000])
def test_same_sample_eager_graph_and_compiled(num_candidates):
    is_positive, is_negative = candidates(3, num_candidates, 0.1, 0.8)

    def draw(is_positive, is_negative, step, keys):
        return sampling.sample(is_positive, is_negative, 64, 0.25, seeds_of(step, keys))

    eager = draw(is_positive, is_negative, tf.constant(3, tf.int64), KEYS)
    dynamic = [tf.TensorSpec([None, None], tf.bool)] * 2
    dynamic += [tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int32)]
    for jit_compile in (False, True):
        function = tf.function(draw, jit_compile=jit_compile, input_signature=dynamic)
        assert function.get_concrete_function().structured_outputs.index.shape[1] == 64
        for a, e in zip(function(is_positive, is_negative, 3, KEYS), eager, strict=True):
            np.testing.assert_array_equal(a, e)


def test_sample_of_an_image_does_not_depend_on_its_batch():
    is_positive, is_negative = candidates(4, 900, 0.1, 0.8)
    together = sampling.sample(is_positive, is_negative, 64, 0.25, seeds_of())
    for b in range(3):
        alone = sampling.sample(
            is_positive[b : b + 1], is_negative[b : b + 1], 64, 0.25, seeds_of(keys=KEYS[b : b + 1])
        )
        np.testing.assert_array_equal(together.index[b], alone.index[0])


def test_every_part_of_the_seed_changes_the_sample():
    is_positive, is_negative = candidates(5, 900, 0.0, 1.0, num_images=1)
    keys = KEYS[:1]
    variants = [
        seeds_of(keys=keys),
        seeds_of(keys=keys, step=4),
        seeds_of(keys=keys, stream=1),
        seeds_of(keys=keys, seed=8),
        seeds_of(keys=-keys),
    ]
    assert len({tuple(v.numpy().ravel()) for v in variants}) == 5
    drawn = [sampling.sample(is_positive, is_negative, 90, 0.5, v).index[0] for v in variants]
    for i in range(5):
        for j in range(i):  # a tenth of the candidates each: two samples share about 9 of 90
            assert len(set(drawn[i].numpy()) & set(drawn[j].numpy())) < 30


def test_image_seeds_never_collide():
    seeds = {
        tuple(row)
        for seed in (0, 1, 2**32 - 1)
        for step in (0, 1, 2**32 - 1)
        for stream in (0, 1, 2**31 - 1)
        for row in sampling.image_seeds(seed, step, tf.constant([0, 1, -1]), stream).numpy()
    }
    assert len(seeds) == 81


@pytest.mark.parametrize(("seed", "stream"), [(-1, 0), (2**32, 0), (0, -1), (0, 2**31)])
def test_image_seeds_refuse_what_does_not_fit(seed, stream):
    with pytest.raises(ValueError, match="must be"):
        sampling.image_seeds(seed, 0, KEYS, stream)


def test_draws_are_uniform():
    """400 draws of 5 of 20: each candidate is expected 100 times, standard deviation 8.7."""
    is_positive = np.zeros([400, 20], bool)
    seeds = seeds_of(keys=tf.range(400))
    drawn = sampling.sample(is_positive, ~is_positive, 5, 0.5, seeds)
    counts = np.bincount(drawn.index.numpy().ravel(), minlength=20)
    assert counts.sum() == 2000
    assert np.abs(counts - 100).max() < 35
