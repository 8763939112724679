import numpy as np
import scene


def iou(a, b):
    """Plain IoU of every pair: [n, m]."""
    corners = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.prod(np.clip(corners[1] - corners[0], 0, None), axis=2)
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    return inside / (area_a[:, None] + area_b[None] - inside)


def test_proposals_of_training_hold_enough_positives_at_both_sizes():
    for size in ((800, 1344), (512, 512)):
        objects, classes = scene.objects(*size, scene.OBJECTS, scene.CLASSES)
        boxes = scene.training_proposals(*size, scene.PROPOSALS, objects)
        assert boxes.shape == (1000, 4)
        assert boxes.dtype == np.float32
        assert (boxes >= 0).all()
        assert (boxes <= np.array([*size, *size])).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (iou(boxes, objects).max(1) >= 0.5).sum() >= 128
        assert ((classes > 0) & (classes < scene.CLASSES)).all()


def test_masks_are_the_ellipses_of_their_boxes():
    boxes = np.array([[10.0, 20.0, 50.0, 100.0], [0.0, 0.0, 8.0, 8.0]], np.float32)
    masks = scene.masks(boxes, 120, 160)
    assert abs(masks[0].sum() / (np.pi / 4 * 40 * 80) - 1) < 0.01
    rows, columns = np.nonzero(masks[0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (10, 50, 20, 100)
    assert masks[1, 4, 4] == 1
    assert masks[1, 0, 0] == 0
    assert masks.sum() == masks[0].sum() + masks[1, :8, :8].sum()


def test_the_image_is_normalised():
    image = scene.image(96, 160)
    assert image.shape == (96, 160, 3)
    assert abs(float(image.std()) - 1) < 1e-3
