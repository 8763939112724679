import flops
import pytest


def count(**fields):
    return flops.gflop(800, 1344, rois=512, masks=128, **fields)


def test_the_backbone_is_resnet50_as_published():
    """4.09 and 3.86 GMAC at 224 x 224, of which the classifier has 2048 * 1000.

    The first is torchvision's figure for its ResNet-50 (stride in the 3x3), the second Keras' for
    He et al.'s, whose table 1 rounds it to 3.8.
    """
    classifier = 2048 * 1000 * 1e-9
    for in_1x1, published in ((False, 4.09), (True, 3.86)):
        counted = flops.gflop(224, 224, rois=1, masks=1, stride_in_1x1=in_1x1)
        assert counted["forward"]["backbone"] / 2 + classifier == pytest.approx(published, abs=5e-3)


def test_heads_by_hand():
    forward = count()["forward"]
    assert forward["box head"] == pytest.approx(
        2e-9 * 512 * (12544 * 1024 + 1024 * 1024 + 1024 * (91 + 360))
    )
    convolutions = 4 * 9 * 256 * 256 * 14 * 14
    deconvolution = 14 * 14 * 4 * 256 * 256
    assert forward["mask head"] == pytest.approx(
        2e-9 * 128 * (convolutions + deconvolution + 28 * 28 * 256)
    )
    places = sum(h * w for h, w in ((200, 336), (100, 168), (50, 84), (25, 42), (13, 21)))
    assert forward["rpn"] == pytest.approx(2e-9 * places * (9 * 256 * 256 + 256 * 15))


def test_backward_is_twice_forward_but_for_what_needs_no_gradient():
    free = count()
    stem = 2e-9 * 400 * 672 * 49 * 3 * 64
    for part in flops.PARTS:
        wanted = 2 * free["forward"][part] - (stem if part == "backbone" else 0)
        assert free["backward"][part] == pytest.approx(wanted), part


def test_frozen_layers_have_no_backward_pass():
    all_frozen = count(freeze_at=5)
    assert all_frozen["backward"]["backbone"] == 0
    laterals = sum(
        2e-9 * (200 >> k) * (336 >> k) * channels * 256
        for k, channels in enumerate((256, 512, 1024, 2048))
    )
    assert all_frozen["backward"]["pyramid"] == pytest.approx(
        2 * all_frozen["forward"]["pyramid"] - laterals
    )
    # Stem and stage 2 forward only; of stage 3, two convolutions need no gradient of their input.
    stage2 = 200 * 336 * (
        64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256  # with the shortcut
        + 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    )  # fmt: skip
    inputs_of_stage3 = 200 * 336 * 256 * 128 + 100 * 168 * 256 * 512
    stem = 400 * 672 * 49 * 3 * 64
    spared = 2e-9 * (stem + 2 * stage2 + inputs_of_stage3)
    free, two = count(), count(freeze_at=2)
    assert free["backward"]["backbone"] - two["backward"]["backbone"] == pytest.approx(spared)
    # The lateral on C2 needs no gradient of C2.
    assert free["backward"]["pyramid"] - two["backward"]["pyramid"] == pytest.approx(
        2e-9 * 200 * 336 * 256 * 256
    )


def test_two_images_cost_twice():
    one, two = count(), count(images=2)
    assert two["backward"]["rpn"] == pytest.approx(2 * one["backward"]["rpn"])
