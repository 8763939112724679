"""Label maps: their file, and how two of them are matched."""

import pytest

from mrcnn_tf.data.label_map import LabelMap, match_names


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
