"""Label maps: their file, and how two of them are matched."""

import pytest

from mrcnn_tf.data.label_map import LabelMap, match_names

FRUIT = LabelMap((1, 2, 3), ("apple", "date", "fig"))


def test_the_file_is_read_back():
    label_map = LabelMap((3, 90), ("dog", "Hündchen"))
    assert LabelMap.from_json(label_map.to_json()) == label_map


@pytest.mark.parametrize(
    ("theirs", "ids", "missing", "unused", "is_renumbered"),
    [
        (LabelMap((1, 2), ("date", "fig")), {1: 1, 2: 2}, (), (), False),
        (LabelMap((1, 2), ("fig", "date")), {1: 2, 2: 1}, (), (), True),
        (LabelMap((2,), ("fig",)), {2: 2}, (), ("date",), False),
        (LabelMap((1, 2, 7), ("date", "plum", "fig")), {1: 1, 7: 2}, ("plum",), (), True),
        (LabelMap((5,), ("Fig",)), {}, ("Fig",), ("date", "fig"), False),
    ],
)
def test_label_maps_are_matched_by_name(theirs, ids, missing, unused, is_renumbered):
    found = match_names(LabelMap((1, 2), ("date", "fig")), theirs)
    assert found == (ids, missing, unused)
    assert found.is_renumbered == is_renumbered


def test_a_name_that_occurs_twice_is_matched_with_its_id():
    ours = LabelMap((1, 2, 3), ("N/A", "N/A", "fig"))
    assert match_names(ours, ours).ids == {1: 1, 2: 2, 3: 3}
    found = match_names(ours, LabelMap((2, 9), ("N/A", "fig")))
    assert found.ids == {9: 3}
    assert found.missing == ("N/A",)


def test_the_same_names_get_the_other_sets_ids():
    theirs = LabelMap((10, 20, 30), ("fig", "apple", "date"))
    assert FRUIT.renumbered(theirs, "val") == LabelMap((20, 30, 10), FRUIT.names)


def test_what_the_other_set_lacks_never_meets_its_ids():
    theirs = LabelMap((3, 9), ("apple", "date"))  # its 3 is an apple, our 3 a fig
    assert FRUIT.renumbered(theirs, "val") == LabelMap((3, 9, -3), FRUIT.names)
    assert FRUIT.renumbered(LabelMap((7,), ("date",)), "val").ids == (1, 7, 3)


def test_a_name_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"val.json has categories .* not know: 'Fig', 'kiwi'"):
        FRUIT.renumbered(LabelMap((1, 2, 3), ("apple", "Fig", "kiwi")), "val.json")


def test_without_names_the_order_counts():
    numbers = LabelMap((1, 2, 3), ("class 1", "class 2", "class 3"))
    assert numbers.renumbered(LabelMap((4, 5, 9), FRUIT.names), "val").ids == (4, 5, 9)
    assert FRUIT.renumbered(LabelMap((4, 5, 9), numbers.names), "val").ids == (4, 5, 9)
    with pytest.raises(ValueError, match="val has 2 categories, the network 3, and without names"):
        numbers.renumbered(LabelMap((1, 2), ("a", "b")), "val")


def test_names_that_occur_twice():
    twice = LabelMap((1, 2, 3), ("N/A", "cat", "N/A"))
    assert twice.renumbered(LabelMap((5,), ("cat",)), "val").ids == (1, 5, 3)
    assert twice.renumbered(LabelMap((4, 5, 6), twice.names), "val").ids == (4, 5, 6)
    with pytest.raises(ValueError, match="val has categories .*: 'cat', 'cat'"):
        twice.renumbered(LabelMap((4, 5), ("cat", "cat")), "val")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b'{"categories": [\n{"class": 1, "id": 3, "na', "Unterminated string"),
        (b"\xff\xfe\xfa", "utf-16"),
        (b"\x80abc", "utf-8"),
        (b"[" * 200_000, "recursion"),
        (b"[]", "it has no list 'categories'"),
        (b'{"categories": {"a": 1}}', "it has no list 'categories'"),
        (b'{"categories": [7]}', r"categories\[0\]: '7' is no object"),
        (b'{"categories": [{"class": 1, "id": 3}]}', r"categories\[0\]: name 'None', expected str"),
        (b'{"categories": [{"class": 1, "id": 1.5, "name": "a"}]}', "id '1.5', expected int"),
        (b'{"categories": [{"class": 1, "id": true, "name": "a"}]}', "id 'True', expected int"),
        (b'{"categories": [{"class": 1, "id": 1e999, "name": "a"}]}', "id 'inf', expected int"),
        (b'{"categories": [{"class": 2, "id": 1, "name": "a"}]}', "class 2, expected 1"),
        (b'{"categories": [{"class": 1, "id": 9999999999999999999, "name": "a"}]}', "64 bits"),
        (
            b'{"categories": [{"class": 1, "id": 4, "name": "a"}, {"class": 2, "id": 4, "name": '
            b'"b"}]}',
            r"ids occur more than once: \[4\]",
        ),
    ],
)
def test_a_damaged_file_is_named_with_the_value(text, said):
    with pytest.raises(ValueError, match=rf"^a/label_map.json: .*{said}") as error:
        LabelMap.from_json(text, "a/label_map.json")
    assert len(str(error.value)) < 200
