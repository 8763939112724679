"""cluster.py: one machine, several, and all that contradicts itself."""

import json
import os

import pytest
import tensorflow as tf
from official.core import config_definitions

from mrcnn_tf.training import cluster
from mrcnn_tf.training.cluster import Cluster

TWO = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}


def runtime(hosts=None, index=-1, strategy="multi_worker_mirrored"):
    return config_definitions.RuntimeConfig(
        distribution_strategy=strategy, worker_hosts=hosts, task_index=index
    )


@pytest.fixture(autouse=True)
def tf_config(monkeypatch):
    """Return a function that sets TF_CONFIG; it is not set."""
    monkeypatch.delenv("TF_CONFIG", raising=False)

    def set_to(value):
        text = value if isinstance(value, str) else json.dumps(value)
        monkeypatch.setenv("TF_CONFIG", text)

    return set_to


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (TWO, Cluster(("a:1", "b:2"), 1)),
        (TWO | {"task": {"type": "worker", "index": "0"}}, Cluster(("a:1", "b:2"), 0)),
        (
            {
                "cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]},
                "task": {"type": "worker", "index": 1},
            },
            Cluster(("a:1", "b:2", "c:3"), 2),
        ),
        (
            {
                "cluster": {"worker": ["b:2"], "chief": ["a:1"]},
                "task": {"type": "chief", "index": 0},
            },
            Cluster(("a:1", "b:2"), 0),
        ),
    ],
)
def test_tf_config_names_the_machines_chief_first(tf_config, said, found):
    tf_config(said)
    assert cluster.find(runtime()) == found


def test_fields_name_the_machines(tf_config):
    found = cluster.find(runtime("a:1, b:2", 1))
    assert found == Cluster(("a:1", "b:2"), 1)
    assert found.others == ["a:1"]
    assert cluster.find(runtime("a:1")) == Cluster(("a:1",), 0)
    tf_config(TWO)  # which says the same
    assert cluster.find(runtime("a:1,b:2", 1)) == found


@pytest.mark.parametrize("said", ["", "{}", json.dumps({"environment": "cloud"})])
def test_one_machine(tf_config, said):
    tf_config(said)
    assert cluster.find(runtime(strategy="mirrored")) is None


def test_one_machine_that_a_scheduler_calls_a_cluster(tf_config):
    tf_config({"cluster": {"chief": ["a:1"]}, "task": {"type": "chief", "index": 0}})
    assert cluster.find(runtime(strategy="mirrored")) is None
    assert cluster.find(runtime()) == Cluster(("a:1",), 0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{cluster: 1}", r"TF_CONFIG \(\{cluster: 1\}\) is not JSON: Expecting property name"),
        ("[1]", "must be a JSON object"),
        ({"task": {"type": "worker", "index": 0}}, "'cluster' must be"),
        ({"cluster": {"worker": ["a:1"]}}, "'task' must be"),
        (TWO | {"task": {"type": "worker"}}, "'task' must be"),
        (TWO | {"task": {"type": "worker", "index": 2}}, "'index' is 2, but there are 2"),
        (TWO | {"task": {"type": "worker", "index": -1}}, "'index' is -1, but there are 2"),
        (TWO | {"task": {"type": "worker", "index": "x"}}, "'index' is 'x'"),
        (TWO | {"task": {"type": "chief", "index": 0}}, "'task' is a 'chief', which 'cluster'"),
        (TWO | {"task": {"type": "evaluator", "index": 0}}, "--mode=continuous_eval without"),
        (
            {"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": TWO["task"]},
            "'cluster' has 'ps'",
        ),
        ({"cluster": {"worker": "a:1"}, "task": TWO["task"]}, "'worker' must be a list"),
        ({"cluster": {"chief": ["a:1", "b:1"]}, "task": TWO["task"]}, "there is one chief"),
        ({"cluster": {"worker": ["a", "b:1"]}, "task": TWO["task"]}, "'a' is not HOST:PORT"),
        ({"cluster": {"worker": [7, "b:1"]}, "task": TWO["task"]}, "7 is not HOST:PORT"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": TWO["task"]}, "'a:1' is there more than"),
    ],
)
@pytest.mark.parametrize("strategy", ["mirrored", "multi_worker_mirrored"])
def test_a_tf_config_that_makes_no_sense_is_refused_whatever_the_strategy(
    tf_config, said, message, strategy
):
    tf_config(said)
    with pytest.raises(ValueError, match=message):
        cluster.find(runtime(strategy=strategy))


@pytest.mark.parametrize(
    ("fields", "environment", "message"),
    [
        (runtime(), None, "needs to know its machines"),
        (runtime("a:1,b:2"), None, "'a:1,b:2' names 2 machines; runtime.task_index has to say"),
        (runtime("a:1,b:2", 2), None, "runtime.task_index: 2: there are 2 machines"),
        (runtime(None, 0), None, "runtime.task_index: 0 of which machines"),
        (runtime("a:1,,b:2", 0), None, "'' is not HOST:PORT"),
        (runtime("a:1,b:70000", 0), None, "'b:70000' is not HOST:PORT"),
        (runtime("a:1,b:2", 0), TWO, "TF_CONFIG says worker 1 of a:1, b:2; .* say worker 0 of"),
        (runtime("a:1,c:2", 1), TWO, "Give one of the two"),
        (
            runtime(strategy="mirrored"),
            TWO,
            "TF_CONFIG names 2 machines .* train on this one alone",
        ),
        (
            runtime("a:1,b:2", 0, "mirrored"),
            None,
            "runtime.worker_hosts: 'a:1,b:2', but runtime.dist",
        ),
        (runtime("a:1,b:2", 0, "one_device"), None, "is 'one_device', which would train on this"),
    ],
)
def test_contradictions_are_refused_with_the_value(tf_config, fields, environment, message):
    if environment:
        tf_config(environment)
    with pytest.raises(ValueError, match=message):
        cluster.find(fields)


def test_params_of_a_run_name_no_machines():
    fields = runtime("a:1,b:2", 1)
    fields.enable_xla = True
    plain = cluster.of_any_machine(fields)
    assert (plain.distribution_strategy, plain.worker_hosts, plain.task_index) == (
        "mirrored",
        None,
        -1,
    )
    assert plain.enable_xla
    assert fields.task_index == 1
    assert cluster.of_any_machine(plain) == plain


@pytest.mark.parametrize(
    "said", ["", "{}", {"cluster": {}, "task": {}}, {"environment": "cloud"}, {"task": {}}]
)
def test_tensorflow_hears_of_the_machines_that_the_fields_name(tf_config, said):
    """It looks at TF_CONFIG alone, which some schedulers set without a cluster."""
    tf_config(said)
    machines = cluster.find(runtime("a:1,b:2", 1))
    cluster.tell_tensorflow(machines)
    assert json.loads(os.environ["TF_CONFIG"]) == TWO
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert resolver.cluster_spec().as_dict() == TWO["cluster"]
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)
    assert cluster.find(runtime()) == machines


def test_a_tf_config_that_names_them_stays_what_it_is(tf_config):
    said = {"cluster": {"chief": ["a:1"], "worker": ["b:2"]}, "rpc_layer": "grpc"}
    said["task"] = {"type": "worker", "index": 0}
    tf_config(said)
    cluster.tell_tensorflow(cluster.find(runtime("a:1,b:2", 1)))
    assert json.loads(os.environ["TF_CONFIG"]) == said
