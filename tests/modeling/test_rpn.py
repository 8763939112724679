import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.modeling import proposals as proposals_lib
from mrcnn_tf.modeling import rpn
from mrcnn_tf.ops import anchors as anchor_ops
from mrcnn_tf.ops import boxes as box_ops
from mrcnn_tf.ops import implementation

EACH = pytest.mark.usefixtures("each_implementation")
SIZES = {2: (8, 6), 3: (4, 3), 4: (2, 2)}
IMAGE_SIZES = np.array([[32, 24], [20, 13]], np.float32)  # the second is smaller than the canvas
SETTINGS = {"pre_nms_top_k": 30, "post_nms_top_k": 25, "nms_iou": 0.6, "min_box_size": 0.5}


def inputs(seed=0, batch=2):
    """Scores of a few values only, so that many are equal, and boxes that reach outside."""
    rng = np.random.default_rng(seed)
    logits, deltas, anchors = {}, {}, {}
    for level, (height, width) in SIZES.items():
        cell = anchor_ops.cell_anchors(3.0 * 2 ** (level - 2), (0.5, 1.0, 2.0), False)
        anchors[level] = anchor_ops.grid_anchors((height, width), 2**level, cell)
        count = height * width * 3
        logits[level] = (rng.integers(-20, 20, [batch, count]) / 4).astype(np.float32)
        deltas[level] = rng.normal(0, 0.6, [batch, count, 4]).astype(np.float32)
    return logits, deltas, anchors


def tensors(logits, deltas, anchors, image_sizes=IMAGE_SIZES):
    as_tensors = tf.nest.map_structure(tf.constant, (logits, deltas))
    return (*as_tensors, anchors, tf.constant(image_sizes))


def numpy_proposals(logits, deltas, anchors, image_size, settings):
    """One image, level by level, box by box: [(score, box)], best first."""
    merged = []
    for level in sorted(logits):
        best = np.argsort(-logits[level], kind="stable")[: settings["pre_nms_top_k"]]
        boxes = box_ops.decode(deltas[level], anchors[level]).numpy()
        boxes = np.clip(boxes, 0, np.concatenate([image_size, image_size]))
        iou = box_ops.iou(boxes, boxes).numpy()
        kept = []
        for i in best:
            sides = boxes[i, 2:] - boxes[i, :2]
            if (
                np.isfinite(logits[level][i])
                and np.isfinite(boxes[i]).all()
                and (sides > settings["min_box_size"]).all()
                and all(iou[k, i] <= settings["nms_iou"] for k in kept)
            ):
                kept.append(i)
        merged += [(logits[level][i], boxes[i]) for i in kept]
    order = np.argsort([-score for score, _ in merged], kind="stable")
    return [merged[i] for i in order[: settings["post_nms_top_k"]]]


def check(proposals, logits, deltas, anchors, settings, image_sizes=IMAGE_SIZES):
    count = settings["post_nms_top_k"]
    assert proposals.boxes.shape == (len(image_sizes), count, 4)
    for b, size in enumerate(image_sizes):
        of_image = ({k: v[b] for k, v in part.items()} for part in (logits, deltas))
        want = numpy_proposals(*of_image, anchors, size, settings)
        padding = count - len(want)
        np.testing.assert_array_equal(proposals.valid[b], [True] * len(want) + [False] * padding)
        scores = [score for score, _ in want] + [-np.inf] * padding
        np.testing.assert_array_equal(proposals.scores[b], scores)
        boxes = [box for _, box in want] + [np.zeros(4)] * padding
        np.testing.assert_allclose(proposals.boxes[b], boxes, atol=1e-4)


@EACH
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pre_nms_top_k": 5, "post_nms_top_k": 40},  # fewer candidates than asked for
        {"pre_nms_top_k": 200, "post_nms_top_k": 300},  # more than there are anchors
        {"post_nms_top_k": 4},
        {"nms_iou": 1.0, "min_box_size": 0.0},
        {"min_box_size": 6.0},
    ],
)
def test_agrees_with_a_slow_twin(changes):
    settings = SETTINGS | changes
    given = inputs()
    proposals = proposals_lib.generate_proposals(*tensors(*given), **settings)
    check(proposals, *given, settings)


def test_same_eager_in_a_graph_of_unknown_sizes_and_under_xla():
    given = inputs(seed=1)
    logits = {level: tf.TensorSpec([None, None]) for level in SIZES}
    deltas = {level: tf.TensorSpec([None, None, 4]) for level in SIZES}
    anchors = {level: tf.TensorSpec([None, 4]) for level in SIZES}
    signature = [logits, deltas, anchors, tf.TensorSpec([None, 2])]
    for jit_compile in (False, True):

        @tf.function(input_signature=signature, jit_compile=jit_compile)
        def run(*args):
            return proposals_lib.generate_proposals(*args, **SETTINGS)

        check(run(*tensors(*given)), *given, SETTINGS)
        # One image and another canvas through the same function.
        logits, deltas, anchors = inputs(seed=2, batch=1)
        fewer = {level: slice(0, anchors[level].shape[0] // 2) for level in SIZES}
        given_2 = (
            {level: logits[level][:, part] for level, part in fewer.items()},
            {level: deltas[level][:, part] for level, part in fewer.items()},
            {level: anchors[level][part] for level, part in fewer.items()},
        )
        sizes = IMAGE_SIZES[:1]
        check(run(*tensors(*given_2, sizes)), *given_2, SETTINGS, sizes)


@pytest.mark.parametrize("mode", ["for_cpus", "for_accelerators", "xla"])
def test_what_is_not_finite_never_becomes_a_proposal(mode):
    logits, deltas, anchors = inputs(seed=3)
    rng = np.random.default_rng(5)
    for level in SIZES:
        for value in (np.nan, np.inf, -np.inf):
            logits[level][rng.random(logits[level].shape) < 0.1] = value
            deltas[level][rng.random(deltas[level].shape) < 0.02] = value
    # A twin that ranks them last: they must not take a place among the pre-NMS best either.
    ranked = {level: np.where(np.isfinite(v), v, -np.inf) for level, v in logits.items()}

    def run(*args):
        return proposals_lib.generate_proposals(*args, **SETTINGS)

    function = tf.function(run, jit_compile=mode == "xla" or None)
    with implementation.force(accelerators=mode != "for_cpus"):
        found = function(*tensors(logits, deltas, anchors))
    check(found, ranked, deltas, anchors, SETTINGS)


@EACH
def test_nothing_but_nan_gives_no_proposals():
    logits, deltas, anchors = inputs()
    logits = {level: np.full_like(v, np.nan) for level, v in logits.items()}
    proposals = proposals_lib.generate_proposals(*tensors(logits, deltas, anchors), **SETTINGS)
    assert not proposals.valid.numpy().any()
    assert not proposals.boxes.numpy().any()


def test_by_hand():
    """Two levels: same box on both is kept twice (NMS is per level), a worse twin is not."""
    anchors = {
        2: tf.constant([[0.0, 0, 10, 10], [0, 0, 10, 9], [-20, -20, -10, -10]]),
        3: tf.constant([[0.0, 0, 10, 10], [5, 5, 25, 25]]),
    }
    logits = {2: tf.constant([[0.5, 2.0, 9.0]]), 3: tf.constant([[1.0, 3.0]])}
    deltas = {2: tf.zeros([1, 3, 4]), 3: tf.zeros([1, 2, 4])}
    proposals = proposals_lib.generate_proposals(
        logits,
        deltas,
        anchors,
        tf.constant([[20.0, 22.0]]),
        pre_nms_top_k=3,
        post_nms_top_k=5,
        nms_iou=0.7,
        min_box_size=0.0,
    )
    want = [[5, 5, 20, 22], [0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(proposals.boxes[0], want)
    np.testing.assert_array_equal(proposals.scores[0], [3.0, 2.0, 1.0, -np.inf, -np.inf])


def test_no_gradient_flows_through_proposals():
    logits, deltas, anchors, sizes = tensors(*inputs())
    with tf.GradientTape() as tape:
        tape.watch([logits, deltas])
        proposals = proposals_lib.generate_proposals(logits, deltas, anchors, sizes, **SETTINGS)
        total = tf.reduce_sum(proposals.boxes)
    assert tape.gradient(total, [*logits.values(), *deltas.values()]) == [None] * 6


def test_head_is_shared_by_levels_and_orders_channels_as_anchors():
    """Twin: at each cell the K scores and K*4 deltas are matrix products of the hidden pixel."""
    head = rpn.RPNHead(channels=5, anchors_per_cell=3)
    features = {
        level: tf.random.stateless_normal([2, *size, 4], [level, 1])
        for level, size in SIZES.items()
    }
    head(features)
    assert len(head.trainable_variables) == 6
    for i, variable in enumerate(head.trainable_variables):
        variable.assign(tf.random.stateless_normal(variable.shape, [i, 2]))
    logits, deltas = head(features)
    for level, (height, width) in SIZES.items():
        hidden = tf.nn.relu(
            tf.nn.conv2d(features[level], head.convs[0].kernel, 1, "SAME") + head.convs[0].bias
        ).numpy()
        assert logits[level].shape == (2, height * width * 3)
        i, j, k = height - 1, width // 2, 2
        at = (i * width + j) * 3 + k
        kernel, bias = head.objectness.kernel.numpy()[0, 0], head.objectness.bias.numpy()
        want = hidden[1, i, j] @ kernel[:, k] + bias[k]
        np.testing.assert_allclose(logits[level][1, at], want, rtol=1e-4)
        kernel, bias = head.deltas.kernel.numpy()[0, 0], head.deltas.bias.numpy()
        want = hidden[1, i, j] @ kernel[:, 4 * k : 4 * k + 4] + bias[4 * k : 4 * k + 4]
        np.testing.assert_allclose(deltas[level][1, at], want, rtol=1e-4, atol=1e-5)


def test_head_starts_as_faster_rcnn_says():
    head = rpn.RPNHead(channels=64, anchors_per_cell=3)
    head({4: tf.zeros([1, 3, 3, 64])})
    for layer in (*head.convs, head.objectness, head.deltas):
        assert np.std(layer.kernel.numpy()) == pytest.approx(0.01, rel=0.2)
        assert not layer.bias.numpy().any()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_head_answers_in_float32_under_mixed_precision(policy, mixed_precision):
    mixed_precision(policy)
    head = rpn.RPNHead(channels=4, anchors_per_cell=3)
    logits, deltas = head({4: tf.ones([1, 2, 2, 4]), 5: tf.ones([1, 1, 1, 4])})
    assert {t.dtype for t in (*logits.values(), *deltas.values())} == {tf.float32}
    assert head.convs[0].compute_dtype == policy.removeprefix("mixed_")
