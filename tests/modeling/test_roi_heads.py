import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import roi_heads
from mrcnn_tf.modeling.roi_pooling import RoIAlign
from mrcnn_tf.ops import roi_align

NUM_CLASSES = 4
MIXED = pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])


def build(**conventions):
    return roi_heads.FPNRoIHeads(
        roi_heads.BoxHead(NUM_CLASSES, pool_size=3, fc_channels=6, rois_per_image=20),
        roi_heads.MaskHead(NUM_CLASSES, mask_size=8, conv_layers=1, conv_channels=5),
        RoIAlign(**conventions),
    )


def features(batch=2, channels=3, dtype=tf.float32):
    return {
        level: tf.cast(
            tf.random.stateless_normal(
                [batch, 256 // 2**level, 192 // 2**level, channels], [level, 3]
            ),
            dtype,
        )
        for level in range(2, 7)
    }


def rois(batch=2, count=5):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, [batch, count, 2])
    size = rng.uniform(4, 90, [batch, count, 2])
    return tf.constant(np.concatenate([corner, corner + size], -1), tf.float32)


def perturb(*layers):
    """Give biases values too, and kernels larger ones."""
    for layer in layers:
        for i, variable in enumerate(layer.trainable_variables):
            variable.assign(0.3 * tf.random.stateless_normal(variable.shape, [i, 5]))


def test_box_head_agrees_with_matrix_products():
    head = roi_heads.BoxHead(NUM_CLASSES, fc_layers=2, fc_channels=6)
    pooled = tf.random.stateless_normal([2, 3, 2, 2, 5], [1, 2])
    head(pooled)
    perturb(head)
    logits, deltas = head(pooled)
    assert (logits.shape, deltas.shape) == ((2, 3, 4), (2, 3, 3, 4))
    x = pooled[1, 2].numpy().ravel()
    for layer in head.hidden:
        x = np.maximum(x @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    want = x @ head.class_logits.kernel.numpy() + head.class_logits.bias.numpy()
    np.testing.assert_allclose(logits[1, 2], want, rtol=1e-4, atol=1e-5)
    # Row k holds the columns 4k .. 4k+3: (dy, dx, dh, dw) of class k + 1.
    want = x @ head.box_deltas.kernel.numpy() + head.box_deltas.bias.numpy()
    np.testing.assert_allclose(deltas[1, 2, 1], want[4:8], rtol=1e-4, atol=1e-5)


def mask_head(side=3):
    head = roi_heads.MaskHead(NUM_CLASSES, conv_layers=1, conv_channels=5)
    pooled = tf.random.stateless_normal([2, 3, side, side, 4], [1, 2])
    head(pooled, tf.ones([2, 3], tf.int32))
    perturb(head)
    return head, pooled


def test_mask_head_agrees_with_computing_all_classes():
    """Twin: a 1x1 convolution to N - 1 maps, of which the class's is taken."""
    head, pooled = mask_head()
    classes = tf.constant([[1, 3, 2], [2, 2, 1]])
    logits = head(pooled, classes)
    assert logits.shape == (2, 3, 6, 6)
    for b in range(2):
        hidden = head.deconv(head.convs[0](pooled[b]))  # [R, M, M, C]
        maps = tf.einsum("rijc,ck->rijk", hidden, head.predictor_kernel) + head.predictor_bias
        for r in range(3):
            want = maps[r, :, :, classes[b, r] - 1]
            np.testing.assert_allclose(logits[b, r], want, rtol=1e-4, atol=1e-5)


def test_mask_of_a_class_uses_its_own_column_only():
    head, pooled = mask_head()
    classes = tf.fill([2, 3], 2)
    before = head(pooled, classes).numpy()
    for column, changes in ((0, False), (2, False), (1, True)):
        kernel, bias = head.predictor_kernel.numpy(), head.predictor_bias.numpy()
        kernel[:, column] += 1.0
        bias[column] -= 0.7
        head.predictor_kernel.assign(kernel)
        head.predictor_bias.assign(bias)
        assert np.any(head(pooled, classes).numpy() != before) == changes


def test_mask_gradient_reaches_its_own_column_only():
    head, pooled = mask_head()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(head(pooled, tf.constant([[3, 3, 3], [1, 3, 3]])) ** 2)
    kernel, bias = (
        tf.convert_to_tensor(g).numpy()
        for g in tape.gradient(total, [head.predictor_kernel, head.predictor_bias])
    )
    np.testing.assert_array_equal(np.abs(kernel).sum(0) > 0, [True, False, True])
    np.testing.assert_array_equal(bias != 0, [True, False, True])


def test_class_of_padding_does_not_matter():
    head, pooled = mask_head()
    for class_id in (0, -1, NUM_CLASSES, 99):
        assert np.isfinite(head(pooled, tf.fill([2, 3], class_id)).numpy()).all()


def test_initialisation_is_that_of_the_references():
    head = roi_heads.BoxHead(31, fc_layers=2, fc_channels=200)
    head(tf.zeros([1, 1, 3, 3, 50]))
    limit = (3 / 450) ** 0.5  # XavierFill: uniform in +- sqrt(3 / inputs)
    kernel = head.hidden[0].kernel.numpy()
    assert limit * 0.99 < np.abs(kernel).max() <= limit
    assert np.std(head.class_logits.kernel) == pytest.approx(0.01, rel=0.05)
    assert np.std(head.box_deltas.kernel) == pytest.approx(0.001, rel=0.05)
    mask = roi_heads.MaskHead(31, conv_layers=1, conv_channels=64)
    mask(tf.zeros([1, 1, 2, 2, 32]), tf.ones([1, 1], tf.int32))
    want = (2 / (9 * 64)) ** 0.5  # MSRAFill: sqrt(2 / (kernel area * outputs))
    assert np.std(mask.convs[0].conv.kernel) == pytest.approx(want, rel=0.05)
    assert np.std(mask.predictor_kernel) == pytest.approx(0.001, rel=0.1)
    assert not any(np.any(v.numpy()) for v in mask.weights if "bias" in v.name)


def test_each_roi_is_pooled_from_the_level_of_its_size():
    """Constant levels: the pooled value says which one was read. P6 is never."""
    levels = {level: tf.fill([1, 256 // 2**level, 256 // 2**level, 1], float(level))
              for level in range(2, 7)}  # fmt: skip
    sides = [10.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 900.0]
    boxes = tf.constant([[[0.0, 0.0, side, side] for side in sides]])
    pooled = build(sampling_ratio=1).pool(levels, boxes, 3)
    np.testing.assert_allclose(pooled[0, :, 0, 0, 0], [2, 2, 3, 3, 4, 4, 5, 5])


def test_presets_differ_on_a_box_that_is_just_too_small_for_its_level():
    """Its level is 4 - 6e-7: torchvision adds 1e-6, Detectron2 does not."""
    levels = {k: tf.fill([1, 256 // 2**k, 256 // 2**k, 1], float(k)) for k in range(2, 7)}
    boxes = tf.constant([[[0.0, 0.0, 223.9999, 223.9999]]])
    detectron2 = build().pool(levels, boxes, 3)
    torchvision = build(log_epsilon=0.0, level_epsilon=1e-6).pool(levels, boxes, 3)
    assert (detectron2[0, 0, 0, 0, 0], torchvision[0, 0, 0, 0, 0]) == (3.0, 4.0)


@pytest.mark.parametrize("aligned", [True, False])
def test_pooling_is_roi_align_with_the_settings_given(aligned):
    heads = build(aligned=aligned, sampling_ratio=3)
    maps, boxes = features(), rois()
    no_p6 = {level: maps[level] for level in range(2, 6)}
    levels = roi_align.assign_levels(boxes, 2, 5)
    want = roi_align.roi_align(no_p6, boxes, levels, 4, sampling_ratio=3, aligned=aligned)
    np.testing.assert_allclose(heads.pool(maps, boxes, 4), want, atol=1e-6)


def test_both_branches_same_eager_graph_and_xla():
    heads = build()
    maps, boxes, classes = features(), rois(), tf.constant([[1, 2, 3, 1, 0]] * 2)

    def run(maps, boxes, classes):
        return (*heads.boxes(maps, boxes), heads.masks(maps, boxes, classes))

    run(maps, boxes, classes)
    perturb(heads.box_head, heads.mask_head)
    eager = run(maps, boxes, classes)
    assert [t.shape for t in eager] == [(2, 5, 4), (2, 5, 3, 4), (2, 5, 8, 8)]
    specs = {level: tf.TensorSpec([None, None, None, 3]) for level in maps}
    signature = [specs, tf.TensorSpec([None, None, 4]), tf.TensorSpec([None, None], tf.int32)]
    for jit_compile in (False, True):
        traced = tf.function(run, signature, jit_compile=jit_compile)
        for a, b in zip(traced(maps, boxes, classes), eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_zero_boxes_give_finite_values_and_gradients():
    heads = build()
    maps, boxes = features(), tf.zeros([2, 5, 4])
    heads.boxes(maps, boxes), heads.masks(maps, boxes, tf.zeros([2, 5], tf.int32))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits, deltas = heads.boxes(maps, boxes)
        masks = heads.masks(maps, boxes, tf.zeros([2, 5], tf.int32))
        total = sum(tf.reduce_sum(t) for t in (logits, deltas, masks))
    gradients = tape.gradient(total, [*heads.trainable_variables, *(maps[k] for k in range(2, 6))])
    for tensor in (logits, deltas, masks, *gradients):
        assert np.isfinite(tf.convert_to_tensor(tensor).numpy()).all()


@MIXED
def test_float32_answers_under_mixed_precision(policy, mixed_precision):
    mixed_precision(policy)
    heads = build()
    dtype = policy.removeprefix("mixed_")
    maps, boxes = features(dtype=dtype), rois()
    assert heads.pool(maps, boxes, 3).dtype == dtype
    logits, deltas = heads.boxes(maps, boxes)
    masks = heads.masks(maps, boxes, tf.ones([2, 5], tf.int32))
    assert [t.dtype for t in (logits, deltas, masks)] == [tf.float32] * 3
    assert heads.mask_head.predictor_kernel.dtype == tf.float32
    assert heads.mask_head.convs[0].compute_dtype == dtype


def test_convolutions_and_norms_in_front_of_the_hidden_layers():
    """torchvision's second version: a layer at a time, by hand."""

    head = roi_heads.BoxHead(
        NUM_CLASSES, fc_layers=1, fc_channels=6, conv_layers=2, conv_channels=3,
        norm="batch_norm",
    )  # fmt: skip
    pooled = np.random.default_rng(3).normal(size=(2, 4, 5, 5, 4)).astype(np.float32)
    logits, deltas = head(pooled)
    for conv in head.convs:
        conv.norm.gamma.assign([1.0, 2.0, 0.5])
        conv.norm.moving_mean.assign([0.1, 0.0, -0.1])
    logits, deltas = head(pooled)
    hidden = pooled.reshape(8, 5, 5, 4)
    for conv in head.convs:
        assert not conv.conv.use_bias
        hidden = tf.nn.conv2d(hidden, conv.conv.kernel, 1, "SAME").numpy()
        gamma, beta, mean, variance = (w.numpy() for w in conv.norm.weights)
        hidden = np.maximum((hidden - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
    (layer,) = head.hidden
    hidden = np.maximum(hidden.reshape(8, 75) @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    want = hidden @ head.class_logits.kernel.numpy() + head.class_logits.bias.numpy()
    np.testing.assert_allclose(logits, want.reshape(2, 4, NUM_CLASSES), atol=1e-5)
    assert deltas.shape == (2, 4, NUM_CLASSES - 1, 4)
    mask_head = roi_heads.MaskHead(NUM_CLASSES, 14, 2, 3, "batch_norm")
    mask_head(pooled, tf.ones([2, 4], tf.int32), training=True)
    assert len(mask_head.trainable_variables) == 2 * 3 + 4
