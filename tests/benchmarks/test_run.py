import json
import subprocess
import sys

import pytest
import run

SUMMARY = {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 3, "calm": 1.5, "calm_runs": 2}


def lines(*medians):
    return [{"seconds": {"step": SUMMARY | {"median": m, "calm": m / 2}}} for m in medians]


def test_ratios_are_of_medians_over_processes():
    group = run.Group(
        "g",
        {},
        ["seconds.step"],
        [run.Ratio("seconds.step", "ours", "theirs", 0.55), run.Ratio("x", "ours", "absent", 1.0)],
    )
    text = run.table(group, {"ours": lines(1.0, 2.0, 9.0), "theirs": lines(4.0)})
    assert "| seconds.step | 2 (1) | 4 (2) |" in text
    assert "ours / theirs = 0.500, calm 0.500 (target: at most 0.55)" in text
    assert "absent" not in text


def test_a_figure_stands_beside_its_target():
    group = run.Group("g", {}, ["a", "b"], at_most={"a": 1.15})
    text = run.table(group, {"ours": [{"a": 1.25, "b": 3}]})
    assert "| a (target: at most 1.15) | 1.25 |" in text
    assert "| b | 3 |" in text


def test_figures_below_a_path_are_all_of_them():
    line = {"seconds": {"a": SUMMARY, "b": {"c": 4}, "text": "no figure", "none": None}}
    assert run.figures_of(line, "seconds") == {"seconds.a": SUMMARY, "seconds.b.c": 4}
    assert run.figures_of(line, "absent.path") == {}


def test_contestants_take_turns_and_a_failure_keeps_no_other_from_running(
    tmp_path, monkeypatch, capsys
):
    order = tmp_path / "order"
    for name, code in (("a", 0), ("b", 0), ("c", 3)):
        (tmp_path / f"{name}.py").write_text(
            f"import json, sys\nopen({str(order)!r}, 'a').write('{name}')\n"
            f"print('text'); print(json.dumps({{'seconds': 2.5}})); print('why', file=sys.stderr)\n"
            f"sys.exit({code})"
        )
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    commands = {"a": ["a.py"], "c": ["c.py"], "b": ["b.py"], "torchvision": ["b.py"]}
    monkeypatch.setattr(run, "groups", lambda: [run.Group("three", commands, ["seconds"])])
    monkeypatch.delenv("TORCHVISION_PYTHON", raising=False)
    log = tmp_path / "logs" / "log.jsonl"
    monkeypatch.setattr(sys, "argv", ["run.py", "--rounds=2", f"--log={log}"])
    with pytest.raises(SystemExit, match=r"(?s)failed.*three, c: c.py.*why"):
        run.main()
    assert order.read_text() == "acbacb"
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["contestant"] for line in logged] == ["a", "b", "a", "b"]
    assert "| seconds | 2.5 | 2.5 |" in capsys.readouterr().out


def test_all_flags_are_ones_that_their_scripts_define():
    shared = (run.FOLDER / "peers" / "torchvision_network.py").read_text()
    count = 0
    for group in run.groups():
        for contestant, (script, *flags) in group.commands.items():
            text = (run.FOLDER / script).read_text() if flags else ""
            if contestant.startswith("torchvision"):
                text += shared
            for flag in flags:
                assert f'add_argument("{flag.split("=")[0]}"' in text, (script, flag)
                count += 1
    assert count > 100


def test_a_name_that_fits_nothing_is_an_error_that_lists_the_groups():
    done = subprocess.run(
        [sys.executable, run.FOLDER / "run.py", "--only=no such group"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "training 800x1344, batch 1, nothing frozen" in done.stderr
