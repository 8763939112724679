"""Some hundred damaged inputs through each door; thousands, in processes with bounds, are slow."""

import pytest

from data_prep import shards
from tests.fuzz import doors, inputs, run

# Inputs that once got through to a traceback or lost something: {kind: [(seed, number)]}.
KEPT: dict[str, list[tuple[int, int]]] = {
    "annotations": [],
    "pictures": [(0, 701)],
    "records": [(1, 0), (2, 387)],
    "weights": [(0, 2512)],
    "requests": [],
    "keypoints": [],
    "keypoint_records": [],
}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *(("annotations", 30), ("pictures", 150), ("records", 30), ("weights", 300)),
        *(("requests", 20), ("keypoints", 10), ("keypoint_records", 10)),
    ],
)
def test_some_inputs(kind, count, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "WorkerPool", shards.WorkerPool)  # which the door replaces
    door = doors.open_door(kind, tmp_path)
    results = {"taken": 0, "refused": 0}
    for seed, number in [*KEPT[kind], *((1, number) for number in range(count))]:
        given = inputs.MAKERS[kind](inputs.generator(kind, seed, number))
        try:
            results[door(given)] += 1
        except Exception as error:
            pytest.fail(f"--kind={kind} --seed={seed} --only={number}: {error!r}")
    assert min(results.values()) > count // 50, results


def test_inputs_are_functions_of_seed_and_number():
    for kind, make in inputs.MAKERS.items():
        first, again, other = (make(inputs.generator(kind, 7, number)) for number in (3, 3, 4))
        assert first == again != other


@pytest.mark.slow
@pytest.mark.parametrize("kind", run.KINDS)
def test_many_inputs(kind):
    """`python -m tests.fuzz.run` sends 10,000 of each: docs/reliability.md."""
    report = run.run(kind, seed=2, count=1000)
    assert report["failed"] == []
    assert report["taken"] + report["refused"] == 1000


@pytest.mark.slow
def test_what_goes_wrong_is_seen(monkeypatch):
    """A door that raises, dies, hangs and takes memory, each at one input."""
    monkeypatch.setattr(run, "MOST_SECONDS", 10.0)
    report = run.run("faulty", seed=0, count=12)
    whys = {failure["number"]: failure["why"] for failure in report["failed"]}
    assert whys.keys() == {2, 4, 6, 8}
    assert "KeyError" in whys[2]
    assert "ended with -11" in whys[4]
    assert whys[6].startswith("nothing for 10 s")
    assert whys[8].endswith("bytes more")
    assert (report["taken"], report["refused"]) == (8, 0)
