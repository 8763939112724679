"""order.py: an epoch is every record once; a place is where going through the stream leads."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from mrcnn_tf.data import canvases, order, preprocess

EDGES = (48, 64)


def _rows_of(num_records, short_edges, seed=3):
    """An epoch's images by number, of records of random sizes."""
    size_hw = np.random.default_rng(0).integers(20, 80, [num_records, 2]).astype(np.int32)

    def choose(size_hw, short_edge):
        resized = preprocess.resized_size_hw(size_hw, short_edge[:, None], 96, "detectron2")
        return canvases.choose(resized, canvases.make(EDGES, 96))

    def rows_of(epoch):
        rows = order.of_epoch(
            tf.constant(epoch, tf.int64),
            size_hw=tf.constant(size_hw),
            seed=seed,
            short_edges=short_edges,
            choose_canvas=choose,
        )
        return order.Rows(*(column.numpy() for column in rows))

    return rows_of


def test_an_epoch_is_every_record_once_in_an_order_of_its_own():
    rows_of = _rows_of(50, EDGES)
    epochs = [rows_of(k) for k in range(3)]
    for k, rows in enumerate(epochs):
        np.testing.assert_array_equal(np.sort(rows.record), np.arange(50))
        np.testing.assert_array_equal(rows.position, k * 50 + np.arange(50))
        assert set(rows.short_edge) == set(EDGES)
    orders = {tuple(rows.record) for rows in (*epochs, _rows_of(50, EDGES, seed=4)(0))}
    assert len(orders) == 4
    np.testing.assert_array_equal(rows_of(1).record, epochs[1].record)


def test_every_record_is_as_likely_in_every_place():
    """The first of five, in 400 epochs: 80 each, standard deviation 8."""
    rows_of = _rows_of(5, EDGES)
    counts = collections.Counter(int(rows_of(k).record[0]) for k in range(400))
    assert all(abs(counts[k] - 80) < 4.5 * 8 for k in range(5))


def _gone_through(rows_of, window, num_steps):
    """The slow oracle: each image joins the group of its canvas; a full group makes a step.

    Returns:
      The positions of the images of each step; those that wait after it; the next position.
    """
    groups, steps = collections.defaultdict(list), []
    for epoch in range(1000):
        rows = rows_of(epoch)
        for position, canvas in zip(rows.position, rows.canvas_hw, strict=True):
            group = groups[tuple(canvas)]
            group.append(int(position))
            if len(group) == window:
                waiting = sorted(p for g in groups.values() if g is not group for p in g)
                steps.append((list(group), waiting, int(position) + 1))
                group.clear()
                if len(steps) == num_steps:
                    return steps
    raise AssertionError


@pytest.mark.parametrize("window", [1, 3, 4])
@pytest.mark.parametrize("short_edges", [EDGES, (64,)])
@pytest.mark.parametrize("num_records", [7, 30])
def test_a_place_is_where_going_through_the_stream_leads(num_records, short_edges, window):
    rows_of = _rows_of(num_records, short_edges)
    cached = {}

    def once(epoch):
        return cached.setdefault(epoch, rows_of(epoch)) if epoch not in cached else cached[epoch]

    steps = _gone_through(once, window, 60)
    for num_steps, (_, waiting, position) in enumerate(steps, start=1):
        place = order.place_after(num_steps, window, once, same_canvases=len(short_edges) == 1)
        assert place.epoch * num_records + place.offset == position
        np.testing.assert_array_equal(place.waiting.position, waiting)
        assert set(place.waiting.short_edge) <= set(short_edges)


def test_a_run_that_begins_stands_at_the_beginning():
    place = order.place_after(0, 4, _rows_of(7, EDGES), same_canvases=False)
    assert (place.epoch, place.offset, len(place.waiting.position)) == (0, 0, 0)


def test_a_late_place_takes_no_time_where_canvases_stay():
    """Millions of epochs of a tiny set are not gone through."""
    rows_of, looked_at = _rows_of(5, (64,)), []

    def counted(epoch):
        looked_at.append(epoch)
        return rows_of(epoch)

    order.place_after(10**7, 4, counted, same_canvases=True)
    assert len(looked_at) <= 6
