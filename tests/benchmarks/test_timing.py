import json

import pytest
import timing


def test_summary_takes_the_calm_median_of_runs_that_had_the_machine_to_themselves():
    runs = timing.Runs(seconds=[1.0, 2.0, 9.0, 4.0], elsewhere=[0.01, 0.04, 0.8, 0.06])
    assert runs.summary() == {
        "median": 3.0, "min": 1.0, "max": 9.0, "runs": 4, "calm": 1.5, "calm_runs": 2,
    }  # fmt: skip


def test_without_a_calm_run_there_is_no_calm_median():
    assert timing.Runs([1.0], [0.5]).summary()["calm"] is None


def test_what_others_used_is_busy_time_that_is_not_our_own_and_what_the_host_took(monkeypatch):
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
    lapse = timing._Clock(wall=10.0, own=6.0, busy=9.0, stolen=1.0)
    assert lapse.elsewhere() == pytest.approx((3.0 + 1.0) / 10.0 / 2)


def test_functions_take_turns_after_warming_up():
    called = []
    taken = timing.in_turn(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")},
        rounds=2,
        before_each=lambda name: called.append(f"-{name}:"),
    )
    assert "".join(called) == "-a:a-b:b-a:a-b:b-a:a-b:b"
    assert {name: len(runs.seconds) for name, runs in taken.items()} == {"a": 2, "b": 2}


def test_a_line_is_json_with_what_else_ran(capsys):
    timing.print_line(figure=1.5)
    line = json.loads(capsys.readouterr().out)
    assert line["figure"] == 1.5
    assert set(line["noise"]) == {"wall_s", "own_cpu_s", "other_cpu_s", "stolen_s"}
