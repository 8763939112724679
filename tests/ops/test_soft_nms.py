import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import soft_nms


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = np.prod(np.clip(high - low, 0, None))
    return inside / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside)


def twin(boxes, scores, valid, groups, sigma, threshold):
    """Each group by itself to its end, then the best of all: [(score, index)]."""
    kept = []
    for group in set(groups):
        left = {i: scores[i] for i in np.flatnonzero(valid & (groups == group))}
        while left:
            best = max(left, key=left.get)
            score = left.pop(best)
            if score <= threshold:
                break
            kept.append((score, best))
            for i in left:
                left[i] *= np.exp(-(iou(boxes[best], boxes[i]) ** 2) / sigma)
    return sorted(kept, reverse=True)


def random_boxes(seed, batch, count):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, [batch, count, 2])
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, [batch, count, 2])], -1)
    scores = rng.uniform(0, 1, [batch, count])
    groups = rng.integers(1, 4, [batch, count])
    return (
        boxes.astype(np.float32),
        scores.astype(np.float32),
        rng.uniform(size=[batch, count]) < 0.8,
        groups.astype(np.int32),
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("sigma", "threshold", "outputs"), [(0.5, 0.3, 20), (0.1, 0.01, 7)])
def test_agrees_with_a_slow_twin(sigma, threshold, outputs, jit_compile):
    given = random_boxes(0, 3, 40)
    run = tf.function(
        lambda *args: soft_nms.soft_nms(*args, sigma, threshold, outputs), jit_compile=jit_compile
    )
    index, scores, valid = run(*map(tf.constant, given))
    for b in range(3):
        want = twin(*(part[b] for part in given), sigma, threshold)[:outputs]
        assert valid[b].numpy().sum() == len(want)
        assert index[b].numpy()[: len(want)].tolist() == [i for _, i in want]
        np.testing.assert_allclose(scores[b][: len(want)], [s for s, _ in want], rtol=1e-5)
        assert not index[b].numpy()[len(want) :].any()
        assert not scores[b].numpy()[len(want) :].any()


def test_by_hand():
    """The second box overlaps the first by half, the third the first not at all."""
    boxes = tf.constant([[[0.0, 0, 2, 2], [0, 0, 2, 1], [5, 5, 6, 6]]])
    index, scores, valid = soft_nms.soft_nms(
        boxes, tf.constant([[0.9, 0.8, 0.6]]), tf.ones([1, 3], tf.bool), tf.ones([1, 3], tf.int32),
        sigma=0.5, score_threshold=0.1, max_outputs=4,
    )  # fmt: skip
    np.testing.assert_array_equal(index, [[0, 2, 1, 0]])
    np.testing.assert_allclose(scores, [[0.9, 0.6, 0.8 * np.exp(-0.5), 0]], rtol=1e-6)
    np.testing.assert_array_equal(valid, [[True, True, True, False]])


def test_no_boxes():
    index, scores, valid = soft_nms.soft_nms(
        tf.zeros([2, 0, 4]), tf.zeros([2, 0]), tf.zeros([2, 0], tf.bool),
        tf.zeros([2, 0], tf.int32), 0.5, 0.1, 3,
    )  # fmt: skip
    assert index.shape == scores.shape == (2, 3)
    assert not valid.numpy().any()


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="sigma must be positive, not 0"):
        soft_nms.soft_nms(*map(tf.constant, random_boxes(0, 1, 3)), 0.0, 0.1, 3)
