"""A worker that comes back alone to a run of several machines: whether there is anything to do."""

import json

from mrcnn_tf import train
from mrcnn_tf.experiment import label_maps, loading
from mrcnn_tf.training import cluster
from mrcnn_tf.training.run_folder import RunFolder, append_row
from tests.training.test_run_folder import checkpoint

FIELDS = {
    "task.model.num_classes": 3,
    "task.train_data.global_batch_size": 4,
    "task.train_data.input_path": "no records/train*",
    "task.validation_data.input_path": "no records/val*",
    "trainer.reference_batch_size": 4,
    "trainer.train_steps": 6,
    "runtime.distribution_strategy": "multi_worker_mirrored",
    "runtime.worker_hosts": "127.0.0.1:1,127.0.0.1:2",
    "runtime.task_index": 1,
}


def experiment_of(**fields):
    return loading.load("maskrcnn_shapes", params_override=json.dumps(FIELDS | fields))


def test_who_comes_back_alone_leaves_if_all_is_done_and_else_waits(tmp_path, capsys):
    run, now = str(tmp_path / "run"), experiment_of()
    now.runtime = cluster.of_any_machine(now.runtime)
    RunFolder(run).write(now, label_maps.of_experiment(now.task))
    assert train._ended(experiment_of(), "train_and_eval", run) is None
    checkpoint(run, 6, 4)
    assert train._ended(experiment_of(), "train_and_eval", run) is None  # not evaluated yet
    assert train._ended(experiment_of(), "train", run) == {}
    append_row(f"{run}/metrics.jsonl", {"step": 6, "images": 24, "box_ap": 0.5})
    assert train.run(experiment_of(), "train_and_eval", run)["box_ap"] == 0.5
    said = f"worker 1: {run}: finished, at step 6, after 24 images. Nothing to do"
    assert said in capsys.readouterr().out
    # More steps, another network, another mode, a folder that is damaged: for all of them together.
    for fields in ({"trainer.train_steps": 7}, {"task.model.fpn.channels": 16}):
        assert train._ended(experiment_of(**fields), "train_and_eval", run) is None
    assert train._ended(experiment_of(), "eval", run) is None
    (tmp_path / "run" / "params.yaml").write_text("")
    assert train._ended(experiment_of(), "train_and_eval", run) is None
