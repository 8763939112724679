"""What a person is told, on numbers in which one thing stands out."""

from mrcnn_tf.reporting import advice, scored
from mrcnn_tf.reporting.history import History
from tests.analysis import scenes

CAT, DOG = 1, 2


def told(objects, found, history=None, **options):
    return " ".join(
        advice.advice(scored.score(scenes.evaluator(objects, found, **options)), history)
    )


def boxes(count, side=20):
    return [[5 + 25 * (k % 4), 5 + 25 * (k // 4), side, side] for k in range(count)]


def test_confused_categories_are_named():
    objects = [(i, DOG, box) for i in range(1, 4) for box in boxes(2)]
    found = [(i, CAT, box, 0.9) for i in range(1, 4) for box in boxes(2)]
    found += [(4, DOG, boxes(1)[0], 0.95)]
    text = told([*objects, (4, DOG, boxes(1)[0])], found, num_images=4)
    assert text.startswith("Class errors cost most")


def test_most_frequent_confusion():
    objects, found = [], []
    for i in range(1, 6):
        objects += [(i, CAT, boxes(2)[0]), (i, DOG, boxes(2)[1])]
        found += [(i, CAT, boxes(2)[0], 0.9), (i, DOG if i < 3 else CAT, boxes(2)[1], 0.8)]
    assert "'dog' was taken for 'cat' 3 times" in told(objects, found, num_images=5)


def test_few_images_and_few_objects():
    objects = [(1, CAT, boxes(1)[0]), (2, DOG, boxes(1)[0])]
    text = told(objects, [(*o, 0.9) for o in objects], num_images=2)
    assert "2 of 2 categories have fewer than 20 objects" in text
    assert "2 validation images tell AP only to within" in text


def rising(*scores):
    rows = [{"step": 100 * k, "box_ap": score} for k, score in enumerate(scores)]
    return History([], rows)


def test_what_the_curve_says():
    objects = [(1, CAT, boxes(1)[0])]
    found = [(1, CAT, boxes(1)[0], 0.9)]
    assert "still rising" in told(objects, found, rising(0.1, 0.2, 0.3))
    assert "by heart" in told(objects, found, rising(0.1, 0.4, 0.3))
    assert "best at step 100 (0.40)" in told(objects, found, rising(0.1, 0.4, 0.3))
    flat = told(objects, found, rising(0.3, 0.301, 0.3))
    assert "rising" not in flat
    assert "by heart" not in flat


def test_scores_that_are_too_sure():
    objects = [(1, CAT, boxes(1)[0])]
    wrong = [(1, CAT, box, 0.9) for box in boxes(4)[1:]]
    assert "surer than it should be" in told(objects, [(1, CAT, boxes(1)[0], 0.95), *wrong])


def test_what_is_perfect_gets_no_advice_on_errors():
    objects = [(i, CAT, box) for i in range(1, 61) for box in boxes(2)]
    text = told(objects, [(*o, 0.99) for o in objects], names=("cat",), num_images=60)
    assert text == ""
