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
    assert "There are objects on 2 validation images, too few to tell" in text
    wrong = told(objects, [(*objects[0], 0.9), (2, DOG, boxes(4)[3], 0.9)], num_images=2)
    assert "On 2 validation images, AP may be" in wrong
    alone = told(objects[:1], [(*objects[0], 0.9)], num_images=9)
    assert "There are objects on 1 validation image, too few to tell" in alone


def rising(*scores, **steps):
    rows = [{"step": 100 * k, "box_ap": score} for k, score in enumerate(scores)]
    return History([], rows, **steps)


def test_what_the_curve_says():
    objects = [(i, CAT, boxes(1)[0]) for i in (1, 2, 3)]

    def say(history):
        return told(objects, [(*o, 0.9) for o in objects], history, num_images=3)

    assert "still rising" in say(rising(0.1, 0.2, 0.3))
    fallen = say(rising(0.1, 0.4, 0.3, step=200, best_step=100))
    assert "best at step 100 (0.40) and 0.30 at the end" in fallen
    assert "by heart. Take the checkpoint in best/, train shorter, or add pictures." in fallen
    taken = say(rising(0.1, 0.4, 0.3, step=100, best_step=100))
    assert "by heart. This report is of that step: take its checkpoint, train shorter" in taken
    for best_step in (None, 200):  # none, or one that was chosen by another number
        gone = say(rising(0.1, 0.4, 0.3, step=200, best_step=best_step))
        assert "by heart. Next time train shorter, or add pictures." in gone
    flat = say(rising(0.3, 0.301, 0.3))
    assert "rising" not in flat
    assert "by heart" not in flat


def test_a_fall_that_may_be_chance_is_not_called_learning_by_heart():
    """Of four images half are found: the interval reaches from 0 to 1."""
    objects = [(i, CAT, boxes(1)[0]) for i in range(1, 5)]
    found = [(*o, 0.9) for o in objects[:2]]
    few = told(objects, found, rising(0.1, 0.4, 0.3), num_images=4)
    assert "higher or lower by chance" in few
    assert "by heart" not in few
    assert "by heart" not in told(objects[:1], found[:1], rising(0.1, 0.4, 0.3))


def test_found_but_nothing_right():
    objects = [(i, CAT, boxes(1)[0]) for i in (1, 2)]
    text = told(objects, [(i, CAT, boxes(4)[3], 0.9) for i in (1, 2)], num_images=2)
    assert text.startswith("Nothing that the network found is right")
    assert "the loss fell" in text


def test_small_objects_are_compared_with_as_many_larger_ones():
    """60 small ones are missed; of medium ones there are enough, of large ones one."""
    small = [(i, CAT, box) for i in range(1, 31) for box in boxes(2)]
    medium = [(i, CAT, [5, 50, 40, 40]) for i in range(1, 31)]
    large = [(31, CAT, [0, 0, 99, 99])]

    def say(larger):
        return told([*small, *larger], [(*o, 0.9) for o in larger], num_images=31)

    assert "Small objects (fewer than 32 x 32 pixels) reach AP 0.00, larger ones 1.00" in say(
        [*medium, *large]
    )
    assert "Small objects" not in say([*medium[:3], *large])


def test_scores_that_are_too_sure():
    objects = [(1, CAT, boxes(1)[0])]
    wrong = [(1, CAT, box, 0.9) for box in boxes(4)[1:]]
    assert "surer than it should be" in told(objects, [(1, CAT, boxes(1)[0], 0.95), *wrong])


def test_what_is_perfect_gets_no_advice_on_errors():
    objects = [(i, CAT, box) for i in range(1, 61) for box in boxes(2)]
    text = told(objects, [(*o, 0.99) for o in objects], names=("cat",), num_images=60)
    assert text == ""
