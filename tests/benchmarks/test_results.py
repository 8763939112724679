import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import result_data
import result_rows
import result_tables
import results

from mrcnn_tf.experiment import loading
from tests.docs import stale_numbers

FOLDER = pathlib.Path(results.__file__).parent
NEVER = float("inf")


def job(tmp_path, name, code="", needs=(), alone=False):
    """A job that takes no time: what it finds is its name's length."""
    folder = tmp_path / name
    metrics = json.dumps({"step": 7, "mask_ap": len(name) / 100})
    code = f"{code}\nopen({str(folder / 'metrics.jsonl')!r}, 'a').write({metrics!r} + '\\n')"
    settings = {"code": code}
    needed = tuple(other.folder for other in needs)
    return results.Job(name, 0, settings, ("-c", code), folder, "", needed, alone)


def run(jobs, tmp_path, places=2, until=NEVER):
    code = results.Schedule(jobs, tmp_path / "rows.jsonl", places, until).run()
    return code, results.read(tmp_path / "rows.jsonl")


def test_every_row_is_an_experiment_that_can_be_run():
    for row in result_rows.ROWS.values():
        fields = result_rows.fields_of(row, seed=2)
        experiment = loading.load(row.experiment, params_override=json.dumps(fields))
        assert experiment.task.seed == experiment.task.train_data.seed == 2
        assert experiment.trainer.train_steps == result_rows.STEPS
        assert row.data in result_data.COMMANDS
        loading.load(
            row.experiment, params_override=json.dumps(result_rows.fields_of(row, 0, True))
        )


def test_rows_stand_beside_others_that_are_there_with_as_many_seeds(tmp_path):
    for row in result_rows.ROWS.values():
        for other in (row.beside, row.scores_of):
            assert not other or result_rows.ROWS[other].seeds >= row.seeds
    jobs = results.plan(tmp_path, tmp_path, tiny=False)
    assert len({job.folder for job in jobs}) == len(jobs)
    assert len(jobs) == sum(row.seeds for row in result_rows.ROWS.values()) + 1
    seeds = [job.seed for job in jobs]
    assert seeds == sorted(seeds)
    [timing] = [k for k, job in enumerate(jobs) if job.alone]
    assert seeds.index(1) == timing + 1  # what a run of an hour may not reach comes last
    at = {job.folder: k for k, job in enumerate(jobs)}
    assert all(at[needed] < at[job.folder] for job in jobs for needed in job.needs)


def test_a_row_with_other_fields_is_another_job(tmp_path, monkeypatch):
    before = results.plan(tmp_path, tmp_path, tiny=False)
    monkeypatch.setattr(result_rows, "STEPS", 999)
    after = results.plan(tmp_path, tmp_path, tiny=False)
    line = {"row": before[0].row, "seed": 0, "settings": json.loads(json.dumps(before[0].settings))}
    assert before[0].is_done([line])
    assert not after[0].is_done([line])
    assert before[0].folder != after[0].folder


def test_only_a_row_and_the_checkpoints_that_it_needs(tmp_path):
    jobs = results.plan(tmp_path, tmp_path, tiny=True)
    assert [job.row for job in results.chosen(jobs, ["tta"])] == ["baseline", "tta"]


def test_what_is_recorded_is_done_but_for_checkpoints_that_others_need(tmp_path, monkeypatch):
    """Of `tta` only the second seed is not recorded: its baseline has to be run anew for it."""
    jobs = [j for j in results.plan(tmp_path, tmp_path, tiny=False) if j.row in ("baseline", "tta")]
    lines = [
        {"row": j.row, "seed": j.seed, "settings": j.settings, "scores": {"mask_ap": 0.5, "x": 1.0}}
        for j in jobs
        if (j.row, j.seed) != ("tta", 1)
    ]
    monkeypatch.setattr(results, "RECORDED", tmp_path / "results.jsonl")
    results.record(jobs, json.loads(json.dumps(lines)))
    recorded = results.read(results.RECORDED)
    assert len(recorded) == len(jobs) - 1
    assert recorded[0]["scores"] == {"mask_ap": 0.5}  # no table shows the other
    left = results.not_recorded(jobs, recorded)
    assert [(j.row, j.seed) for j in left] == [("baseline", 1), ("tta", 1)]


def test_the_page_has_the_tables_of_what_is_recorded(capsys):
    """Number by number: tables, what they say of noise, and the cells of docs/models.md."""
    jobs = results.plan(pathlib.Path("runs/results"), pathlib.Path("datasets/results"), False)
    lines = results.read(results.RECORDED)
    result_tables.show([line for job in jobs if (line := job.line(lines))])
    of_page, of_models = capsys.readouterr().out.split("### Seen here\n")
    page = (FOLDER.parent / "docs/results.md").read_text("utf-8")
    blocks = [block.strip() for block in of_page.strip().split("\n\n")]
    assert len(blocks) > 20
    for block in blocks:
        assert block in page
    models = (FOLDER.parent / "docs/models.md").read_text("utf-8")
    cells = [line.removeprefix("* ") for line in of_models.splitlines() if line.startswith("* ")]
    assert len(cells) > 20
    for cell in cells:
        assert cell in models


def test_jobs_run_once_in_order_and_are_kept(tmp_path):
    third = job(tmp_path, "third")
    wait = f"while not os.path.exists({str(third.folder / 'metrics.jsonl')!r}): time.sleep(0.01)"
    first = job(tmp_path, "first", f"import os, time\n{wait}\nsum(range(20_000_000))")
    second = job(tmp_path, "second", needs=[first])
    code, lines = run([first, second, third], tmp_path)
    assert code == 0
    assert [line["row"] for line in lines] == ["third", "first", "second"]  # second waited
    assert [line["scores"]["mask_ap"] for line in lines] == [0.05, 0.05, 0.06]
    assert [line["starts"] for line in lines] == [1, 1, 1]
    assert 0.1 < lines[1]["cpu_seconds"] < 20
    assert run([first, second, third], tmp_path) == (0, lines)  # nothing is run twice


def test_nothing_runs_beside_what_is_alone(tmp_path):
    alone = job(tmp_path, "alone", "import time; time.sleep(0.2)", alone=True)
    others = [job(tmp_path, "a"), job(tmp_path, "b")]
    _, lines = run([others[0], alone, others[1]], tmp_path)
    assert [line["row"] for line in lines] == ["a", "alone", "b"]


def test_a_job_that_fails_keeps_only_those_back_that_need_it(tmp_path, capsys):
    bad = job(tmp_path, "bad", "import sys; sys.exit('no such records')")
    jobs = [bad, job(tmp_path, "behind", needs=[bad]), job(tmp_path, "other")]
    silent = results.Job("silent", 0, {}, ("-c", ""), tmp_path / "silent")  # leaves no scores
    code, lines = run([*jobs, silent], tmp_path)
    assert code == 1
    assert [line["row"] for line in lines] == ["other"]
    said = capsys.readouterr()
    assert f"failed: bad, seed 0 ({bad.folder / 'log.txt'}): no such records" in said.err
    assert f"failed: silent, seed 0 ({silent.folder}): IndexError" in said.err
    assert "1 of 4 are done" in said.out
    mended = job(tmp_path, "bad")
    code, lines = run([mended, job(tmp_path, "behind", needs=[mended])], tmp_path)
    assert (code, [line["row"] for line in lines]) == (0, ["other", "bad", "behind"])
    assert lines[1]["starts"] == 2  # of the same folder


def test_nothing_is_started_after_the_minutes(tmp_path):
    assert run([job(tmp_path, "late")], tmp_path, until=time.monotonic() - 1) == (0, [])


def test_at_the_end_of_the_minutes_what_runs_is_told_to_end(tmp_path, capsys):
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    jobs = [job(tmp_path, "long", code + "time.sleep(60)"), job(tmp_path, "next")]
    assert run(jobs, tmp_path, places=1, until=time.monotonic() + 0.5) == (0, [])
    ended = results.read(jobs[0].folder / results.PROCESSES)[-1]
    assert ended["exit_code"] in (143, -signal.SIGTERM)  # the latter before Python had begun
    assert not jobs[1].folder.exists()
    said = capsys.readouterr()
    assert "0 of 2 are done" in said.out
    assert "failed" not in said.err  # it goes on another time


def test_sigterm_is_handed_on_and_nothing_new_is_started(tmp_path, capsys):
    code = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"pathlib.Path({str(tmp_path / 'there')!r}).touch()\n"
        "time.sleep(60)"
    )
    jobs = [job(tmp_path, "long", code), job(tmp_path, "next")]

    def stop():
        while not (tmp_path / "there").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert run(jobs, tmp_path, places=1) == (143, [])
    assert "0 of 2 are done" in capsys.readouterr().out
    assert results.read(jobs[0].folder / results.PROCESSES)[-1]["exit_code"] == 143


def test_what_a_killed_script_left_running_is_not_run_beside_it(tmp_path, monkeypatch):
    taken = job(tmp_path, "taken")
    taken.folder.mkdir()
    lock = (taken.folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    monkeypatch.setattr(time, "sleep", lambda _: lock.close())  # meanwhile that one ends
    code, lines = run([taken, job(tmp_path, "free")], tmp_path, places=1)
    assert (code, [line["row"] for line in lines]) == (0, ["free", "taken"])


def test_a_run_that_ended_unseen_has_no_times(tmp_path):
    unseen = job(tmp_path, "unseen")
    unseen.folder.mkdir()
    (unseen.folder / results.PROCESSES).write_text('{"started": "before"}\n')
    _, [line] = run([unseen], tmp_path)
    assert (line["starts"], line["seconds"], line["cpu_seconds"]) == (2, None, None)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"row": "a"}\n{"row": \n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: "):
        results.read(tmp_path / "rows.jsonl")


def line(row, seed, mask, box, cpu_seconds=100.0):
    scores = {"mask_ap": mask, "box_ap": box, "step": 1000}
    return {
        "row": row, "seed": seed, "scores": scores, "cpu_seconds": cpu_seconds, "commit": "abc",
        "steps": 1000,
    }  # fmt: skip


LINES = [
    line("baseline", 0, 0.40, 0.50),
    line("baseline", 1, 0.42, 0.52, 200.0),
    line("baseline", 2, 0.44, 0.54, None),
    line("roi_pool", 0, 0.35, 0.51),
    line("roi_pool", 1, 0.40, 0.51),
]


def test_tables_have_means_each_seed_and_differences_of_the_same_seeds(capsys):
    result_tables.show(LINES)
    out = capsys.readouterr().out
    assert (
        "| ResNet-18-FPN, sigmoid masks, RoIAlign (`baseline`) | 42.0 (40.0 42.0 44.0) "
        "| 52.0 (50.0 52.0 54.0) |  |  |  | 150 s |"
    ) in out
    assert (
        "| RoIPool (`roi_pool`) | 37.5 (35.0 40.0) | 51.0 (51.0 51.0) |  | mask AP -3.5 (-5.0 -2.0)"
        "; box AP +0.0 (+1.0 -1.0) | mask 26.9, RoIAlign 30.3 (-3.4; R50-C4, table 2c) | 100 s |"
    ) in out
    assert "| RoIAlign, maximum (`roi_align_max`) |  |  |  |  |" in out  # not run yet
    assert "### A rare category" not in out  # none of it
    assert out.count("Measured at `abc` by `python benchmarks/results.py`.") == 4
    assert "5 lines; steps: 1000; commits: abc; 8 minutes of processor time, that of 1 not" in out


def test_noise_is_that_of_the_seeds():
    by_row = {"baseline": {found["seed"]: found for found in LINES[:3]}}
    said = result_tables.noise(by_row)
    assert "`baseline`, mask AP: 40.0 to 44.0 with 3 seeds, standard deviation 2.00" in said
    # 2 * 2.00 * sqrt(2) and 2 * 2.00 * sqrt(2 / 3)
    assert "says nothing below 5.7 points" in said
    assert "of two means of three below 3.3." in said
    assert result_tables.noise({"baseline": {0: LINES[0]}}) == ""


def test_titles_of_metrics():
    names = ("mask_ap", "mask_ap/star", "mask_ap_rare", "keypoint_ap")
    titles = ["mask AP", "mask AP, star", "mask AP rare", "keypoint AP"]
    assert [result_tables._title(name) for name in names] == titles


def test_times_of_evaluations_have_a_table():
    seconds = {"median": 4.123, "calm": None}
    times = {
        "rounds": 7,
        "seconds": {"baseline": seconds, "tta": {"median": 12.5, "calm": 12.25}},
        "ratios": {"baseline": 1.0, "tta": 3.05},
    }
    found = {"times": times, "cores": 2, "commit": "abc"}
    said = result_tables.timing({"evaluation_time": {0: found}})
    assert "7 rounds in turn in one process on 2 cores" in said
    assert said.splitlines()[-4:] == [
        "| `baseline` | 4.12 |  | 1.00 |",
        "| `tta` | 12.50 | 12.25 | 3.05 |",
        "",
        "Measured at `abc` by `python benchmarks/results.py`.",
    ]
    assert result_tables.timing({}) == ""


def test_below_a_table_stands_where_its_numbers_are_from():
    made = [line("baseline", 0, 0.4, 0.5) | {"commit": commit} for commit in ("0aaaaaa", "1bbbbbb")]
    said = result_tables.measured_at([*made, made[0]])
    assert said == "Measured at `0aaaaaa` and `1bbbbbb` by `python benchmarks/results.py`."
    assert stale_numbers._MEASURED.fullmatch(said)
    assert result_tables.measured_at([]) == ""


def test_keypoints_stand_beside_the_same_without_them():
    without, with_them = line("arrows", 0, 0.40, 0.50), line("keypoints", 0, 0.39, 0.52)
    with_them["scores"] |= {"keypoint_ap": 0.125, "keypoint_ap_large": -1}
    by_row = {"arrows": {0: without}, "keypoints": {0: with_them}}
    [group] = [group for group in result_rows.GROUPS if group.title == "Keypoints"]
    _, _, first, second = result_tables.table(group, by_row)
    assert first.startswith("| boxes and masks only (`arrows`) |  | 50.0 | 40.0 |  |")
    assert "| 12.5 | 52.0 | 39.0 | box AP +2.0; mask AP -1.0 | keypoint 64.0, " in second
    assert result_tables.of_seeds({0: with_them}, "keypoint_ap_large") == {}  # of nothing
    assert result_tables.in_a_line(with_them) == "keypoint AP 12.5, box AP 52.0, mask AP 39.0"
    said = result_tables.seen(by_row)
    assert said.splitlines()[-1] == "* `keypoints`: keypoint AP 12.5, box AP +2.0"


def test_what_was_seen_is_the_mean_difference():
    by_row = {name: {} for name in ("baseline", "roi_pool")}
    for found in LINES:
        by_row[found["row"]][found["seed"]] = found
    said = result_tables.seen(by_row)
    assert said.splitlines()[2:] == ["* `roi_pool`: mask AP -3.5, box AP +0.0 (2 seeds)"]
    assert result_tables.seen({}) == ""


def test_few_images_keep_the_rare_category():
    coco = {
        "categories": [{"id": 4, "name": "ring"}, {"id": 9, "name": "star"}],
        "images": [{"id": i} for i in (1, 2, 3, 4)],
        "annotations": [
            {"image_id": 2, "category_id": 9},
            {"image_id": 2, "category_id": 4},
            {"image_id": 3, "category_id": 9},
            {"image_id": 4, "category_id": 4},
        ],
    }
    few = result_data.with_few(coco, "star", 1)
    assert [image["id"] for image in few["images"]] == [1, 2, 4]
    assert few["annotations"] == [coco["annotations"][i] for i in (0, 1, 3)]
    assert few["categories"] == coco["categories"]


@pytest.mark.slow
def test_the_command_trains_scores_times_and_goes_on(tmp_path, measure):
    command = [
        *(sys.executable, FOLDER / "results.py", "--tiny", "--only", "tta"),
        *(f"--runs={tmp_path}/runs", f"--data={tmp_path}/data"),
    ]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    trained, scored = results.read(tmp_path / "runs/rows.jsonl")
    assert (trained["row"], scored["row"]) == ("baseline", "tta")
    assert trained["steps"] == scored["steps"] == result_rows.TINY_STEPS
    for found in (trained, scored):
        assert {"mask_ap", "box_ap", "boundary_ap"} <= found["scores"].keys()
    assert scored["scores"]["checkpoint"].startswith(str(tmp_path / "runs/baseline-0-"))
    contestants = [
        {
            "name": found["row"],
            "checkpoint": str(next(tmp_path.glob("runs/baseline-0-*"))),
            "settings": found["settings"],
        }
        for found in (trained, scored)
    ]
    [timed] = measure("evaluation_time.py", "--contestants", json.dumps(contestants), "--rounds=2")
    assert timed["ratios"]["baseline"] == 1
    assert timed["ratios"]["tta"] > 1  # six views of each image
    assert timed["seconds"]["tta"]["runs"] == 2
    again = subprocess.run(command, capture_output=True, text=True)
    assert "2 of 2 are done" in again.stdout
    assert "started" not in again.stdout
    tables = subprocess.run([*command, "--tables"], capture_output=True, text=True).stdout
    assert tables in again.stdout
    assert "RoIAlign (`baseline`) | 0." in tables
