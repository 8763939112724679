import json

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.ops import anchors

RATIOS = (0.5, 1.0, 2.0)
FPN_SIZES = {2: 32, 3: 64, 4: 128, 5: 256, 6: 512}


def test_cell_anchors_by_hand():
    # Ratio 4: twice as high, half as wide as the square of the same area.
    np.testing.assert_array_equal(
        anchors.cell_anchors(8, (0.25, 1.0, 4.0), rounded=False),
        [[-2, -8, 2, 8], [-4, -4, 4, 4], [-8, -2, 8, 2]],
    )


def test_cell_anchors_keep_area_and_ratio():
    made = anchors.cell_anchors((32, 64), RATIOS, rounded=False)
    height, width = made[:, 2] - made[:, 0], made[:, 3] - made[:, 1]
    np.testing.assert_allclose(height * width, [32**2] * 3 + [64**2] * 3, rtol=1e-5)
    np.testing.assert_allclose(height / width, RATIOS * 2, rtol=1e-5)
    assert made.dtype == np.float32


def test_rounded_cell_anchors_are_torchvisions():
    # torchvision 0.28, AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),)), as (y1, x1, y2, x2).
    np.testing.assert_array_equal(
        anchors.cell_anchors(32, RATIOS, rounded=True),
        [[-11, -23, 11, 23], [-16, -16, 16, 16], [-23, -11, 23, 11]],
    )


@pytest.mark.parametrize(("size", "ratios"), [(0, (1.0,)), (32, (1.0, -2.0))])
def test_cell_anchors_refuse_what_is_not_positive(size, ratios):
    with pytest.raises(ValueError, match="must be positive"):
        anchors.cell_anchors(size, ratios, rounded=False)


def test_grid_order_is_y_x_k():
    cell = np.float32([[-1, -1, 1, 1], [-2, -3, 2, 3]])
    made = anchors.grid_anchors((2, 3), 8, cell).numpy()
    assert made.shape == (12, 4)
    by_cell = made.reshape(2, 3, 2, 4)
    for i in range(2):
        for j in range(3):
            center = np.float32([i, j, i, j]) * 8
            np.testing.assert_array_equal(by_cell[i, j], cell + center)


def test_offset_moves_centers_by_half_a_stride():
    cell = anchors.cell_anchors(32, RATIOS, rounded=False)
    corner = anchors.grid_anchors((3, 4), 16, cell)
    middle = anchors.grid_anchors((3, 4), 16, cell, offset=0.5)
    np.testing.assert_allclose(middle - corner, np.full([36, 4], 8.0), atol=1e-5)


def test_stride_may_differ_in_y_and_x():
    # torchvision divides the padded size by the feature size: 800 // 13 = 61, not 64.
    made = anchors.grid_anchors((2, 2), (61, 64), np.zeros([1, 4], np.float32))
    np.testing.assert_array_equal(
        made, [[0, 0, 0, 0], [0, 64, 0, 64], [61, 0, 61, 0], [61, 64, 61, 64]]
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_sizes_may_be_tensors(jit_compile):
    cell = {level: anchors.cell_anchors(s, RATIOS, False) for level, s in FPN_SIZES.items()}

    @tf.function(jit_compile=jit_compile)
    def from_features(features):
        sizes = {level: tf.shape(f)[1:3] for level, f in features.items()}
        return {level: anchors.grid_anchors(sizes[level], 2**level, cell[level]) for level in sizes}

    hw = {2: (80, 120), 3: (40, 60), 4: (20, 30), 5: (10, 15), 6: (5, 8)}
    actual = from_features({level: tf.zeros([1, *hw[level], 1]) for level in hw})
    expected = {level: anchors.grid_anchors(hw[level], 2**level, cell[level]) for level in hw}
    for level in hw:
        assert expected[level].shape == (hw[level][0] * hw[level][1] * 3, 4)
        np.testing.assert_array_equal(actual[level], expected[level])


def test_no_cells():
    assert anchors.grid_anchors((0, 5), 4, np.zeros([3, 4], np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    "recording",
    ["maskrcnn_r50_fpn_torchvision", "maskrcnn_r50_fpn_detectron2", "maskrcnn_r50_c4_detectron2"],
)
def test_anchors_equal_recorded_ones(shared, recording):
    """Recorded from torchvision 0.28 and Detectron2 0.6 on a 320 x 480 input."""
    path = shared / "golden" / f"{recording}.npz"
    if not path.exists():
        pytest.skip(f"no recording {path}")
    with np.load(path) as file:
        golden = dict(file)
    meta = json.loads(str(golden["meta"]))
    rounded = meta["source"] == "torchvision"
    if meta["architecture"] == "c4":
        sizes, hw = {4: (32, 64, 128, 256, 512)}, {4: (20, 30)}
    else:
        sizes = FPN_SIZES
        hw = {2: (80, 120), 3: (40, 60), 4: (20, 30), 5: (10, 15), 6: (5, 8)}
    cell = {level: anchors.cell_anchors(s, RATIOS, rounded) for level, s in sizes.items()}
    made = np.concatenate(
        [anchors.grid_anchors(hw[level], 2**level, cell[level]) for level in sorted(hw)]
    )
    assert len(made) == golden["anchors_count"]
    first = golden["anchors_first"][:, [1, 0, 3, 2]]  # recorded as (x1, y1, x2, y2)
    np.testing.assert_allclose(made[: len(first)], first, atol=1e-5)
