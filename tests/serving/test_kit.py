"""The files beside the models, read as those who use them read them."""

import dataclasses
import pathlib
import re
import subprocess
import types

import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from mrcnn_tf import export as export_command
from mrcnn_tf.serving import encoded_files, kit, preprocessing, signatures
from tests.serving import served

# tensorflow-serving-api leaves these messages out. Fields and numbers are those of TensorFlow
# Serving 2.20: config/monitoring_config.proto, servables/tensorflow/session_bundle_config.proto.
_MESSAGES = {
    "Int64Value": {"value": (1, "int64")},
    "StringValue": {"value": (1, "string")},
    "BoolValue": {"value": (1, "bool")},
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
    "BatchingParameters": {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "allowed_batch_sizes": (6, "*int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    },
}
# Of tensorflow_model_server 2.20, as far as a kit may use them (model_servers/main.cc).
_SERVER_FLAGS = {
    "port", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms", "enable_batching",
    "batching_parameters_file", "model_config_file", "model_config_file_poll_wait_seconds",
    "monitoring_config_file", "enable_model_warmup", "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
}  # fmt: skip


def message(name):
    file = descriptor_pb2.FileDescriptorProto(name="kit.proto", package="kit", syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        added = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            field = added.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind[0] == "*" else field.LABEL_OPTIONAL
            kind = kind.lstrip("*")
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".kit.{kind}"
            else:
                field.type = field.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kit.{name}"))()


@pytest.fixture
def written(tmp_path):
    """A kit named as people name networks."""
    kit.write(str(tmp_path), "Maskrcnn_r50.fpn", "image_bytes", None)
    return tmp_path


def test_models_config(written):
    config = text_format.Parse(
        (written / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = config.model_config_list.config
    assert (model.name, model.model_platform) == ("Maskrcnn_r50.fpn", "tensorflow")
    assert model.base_path == "/kit/models/Maskrcnn_r50.fpn"
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_parameters(written):
    text = (written / "batching_parameters.txt").read_text()
    given = text_format.Parse(text, message("BatchingParameters"))
    # What the server asks of them, or it does not start.
    assert 1 <= given.max_execution_batch_size.value <= given.max_batch_size.value
    assert given.enable_large_batch_splitting.value
    assert given.num_batch_threads.value >= 1
    assert given.max_enqueued_batches.value >= 1
    assert given.batch_timeout_micros.value == 10_000
    assert not given.allowed_batch_sizes


def test_monitoring_config(written):
    text = (written / "monitoring.config").read_text()
    given = text_format.Parse(text, message("MonitoringConfig"))
    assert given.prometheus_config.enable
    assert given.prometheus_config.path == "/monitoring/prometheus/metrics"


def flags_of(arguments):
    return dict(argument.removeprefix("--").split("=") for argument in arguments)


def test_compose(written):
    (name, service), *others = yaml.safe_load((written / "compose.yaml").read_text())[
        "services"
    ].items()
    assert (name, others) == ("serving", [])
    assert service["image"] == "tensorflow/serving:2.20.0"
    assert service["ports"] == ["8500:8500", "8501:8501"]
    assert service["volumes"] == [".:/kit:ro"]
    flags = flags_of(service["command"])
    assert flags.keys() <= _SERVER_FLAGS
    for flag in ("model_config_file", "monitoring_config_file"):
        assert (written / pathlib.Path(flags[flag]).relative_to("/kit")).is_file()


def test_kubernetes(written):
    documents = [*yaml.safe_load_all((written / "kubernetes.yaml").read_text())]
    claim, deployment, service = documents
    kinds = [(one["apiVersion"], one["kind"]) for one in documents]
    assert kinds == [("v1", "PersistentVolumeClaim"), ("apps/v1", "Deployment"), ("v1", "Service")]
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,), (volume,) = pod["spec"]["containers"], pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/kit")
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {one["targetPort"] for one in service["spec"]["ports"]} == ports.keys()
    assert container["readinessProbe"]["httpGet"] == {
        "path": "/v1/models/Maskrcnn_r50.fpn/metadata",
        "port": "rest",
    }
    flags = flags_of(container["args"])
    assert flags.keys() <= _SERVER_FLAGS
    cores = container["resources"]["limits"]["cpu"]
    assert flags["tensorflow_intra_op_parallelism"] == cores
    assert all(value == str(value) for value in pod["metadata"]["annotations"].values())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("shapes", "shapes"),
        ("Maskrcnn_r50.fpn-", "maskrcnn-r50-fpn"),
        ("2024", "model-2024"),
        ("2024-06_shapes", "model-2024-06-shapes"),
        ("1e5", "model-1e5"),
        ("true", "true"),
        ("No", "no"),
        ("null", "null"),
        ("x" * 100, "x" * 59),
        ("x" * 58 + "-y", "x" * 58),
        ("7" * 100, "model-" + "7" * 53),
    ],
)
def test_names_in_kubernetes(tmp_path, name, label):
    """Strings all of them, whatever YAML makes of such words, and names by RFC 1035."""
    kit.write(str(tmp_path), name, "image_bytes", None)
    claim, deployment, service = yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())
    pod = deployment["spec"]["template"]
    assert deployment["metadata"]["name"] == service["metadata"]["name"] == label
    assert claim["metadata"]["name"] == f"{label}-kit"
    for one in (claim, deployment, service):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"])
    assert pod["metadata"]["labels"] == service["spec"]["selector"] == {"app": label}
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": label}
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == f"{label}-kit"


def test_memory_for_a_request_of_the_largest_pictures(written):
    """Decoded, 3 bytes a pixel, and 12 more while they are resized; and the network."""
    _, deployment, _ = yaml.safe_load_all((written / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
    at_once = encoded_files.PARALLEL * preprocessing.MAX_IMAGE_PIXELS * (3 + 12)
    assert limit >= at_once + 2 * 2**30


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_batching_is_switched_on_by_taking_two_signs_away(written, name):
    text = (written / name).read_text()
    changed = yaml.safe_load_all(text.replace("# - --", "- --"))
    (arguments,) = [a for document in changed for a in _lists_of_flags(document)]
    assert "--enable_batching" in arguments
    (file,) = [a for a in arguments if a.startswith("--batching_parameters_file=/kit/")]
    assert (written / file.rpartition("/")[2]).is_file()
    assert "--enable_batching" not in next(
        flags for document in yaml.safe_load_all(text) for flags in _lists_of_flags(document)
    )


def _lists_of_flags(value):
    """Yield the lists of flags, however deep."""
    if isinstance(value, dict):
        for one in value.values():
            yield from _lists_of_flags(one)
    elif isinstance(value, list):
        if value and isinstance(value[0], str) and value[0].startswith("--"):
            yield value
        for one in value:
            yield from _lists_of_flags(one)


@pytest.mark.parametrize("added_masks", [None, "run_lengths"])
def test_files_may_be_put_together(tmp_path, added_masks):
    kit.write(str(tmp_path), "a", "image_bytes", added_masks)
    assert (tmp_path / "batching_parameters.txt").exists()


@pytest.mark.parametrize(
    ("input_type", "added_masks"), [("image_tensor", None), ("image_bytes", "pasted")]
)
def test_what_has_the_pictures_sizes_is_not_put_together(tmp_path, input_type, added_masks):
    """Pixels in requests, or masks in answers: nothing suggests it."""
    kit.write(str(tmp_path), "a", input_type, added_masks)
    assert not (tmp_path / "batching_parameters.txt").exists()
    for name in ("compose.yaml", "kubernetes.yaml"):
        assert "enable_batching" not in (tmp_path / name).read_text()
        assert [*yaml.safe_load_all((tmp_path / name).read_text())]


def test_what_is_there_is_kept(written):
    (written / "compose.yaml").write_text("services: {}\n")
    (written / "monitoring.config").unlink()
    again = kit.write(str(written), "Maskrcnn_r50.fpn", "image_bytes", None)
    assert again == (["monitoring.config"], ["compose.yaml"])
    assert (written / "compose.yaml").read_text() == "services: {}\n"
    other = kit.write(str(written), "another", "image_bytes", None)
    assert other == ([], ["models.config", "compose.yaml", "kubernetes.yaml"])


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "1"),
        (["1"], "2"),
        (["1", "3", "3.incomplete", "notes", "-7", "10"], "11"),
        (["0007"], "8"),
        (["20261126"], "20261127"),
    ],
)
def test_the_next_free_number(tmp_path, there, expected):
    for name in there:
        (tmp_path / "models/a" / name).mkdir(parents=True)
    assert kit.next_version(str(tmp_path), "a") == str(tmp_path / "models/a" / expected)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b", "ä", 'a"'])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="model_name"):
        kit.check_name(name)


class Flags(types.SimpleNamespace):
    """Values, and which of them were typed, as absl has them."""

    def __init__(self, values, given):
        super().__init__(**(values | given))
        self._given = given

    def __getitem__(self, name):
        return types.SimpleNamespace(present=name in self._given)


@pytest.fixture
def command(monkeypatch, detect, labels, preprocess):
    """Return f(**flags): the command, with a network that is there already."""

    class Loaded:
        def export(self, export_dir, input_type, score_threshold, max_image_pixels, added_masks):
            return signatures.export_saved_model(
                detect,
                export_dir,
                input_type=input_type,
                label_map=labels,
                preprocess=dataclasses.replace(preprocess, max_image_pixels=max_image_pixels),
                mask_convention="pixel_centres",
                score_threshold=score_threshold,
                added_masks=added_masks,
            )

    monkeypatch.setattr(export_command.detector.Detector, "load", lambda *_: Loaded())
    monkeypatch.setattr(export_command, "_suggested", lambda checkpoint: None)
    monkeypatch.setattr(export_command.edge, "laid_over", lambda override: override)

    def run(**given):
        values = {
            **{"experiment": "rectangles", "checkpoint_path": "", "export_dir": None},
            **{"serving_kit": None, "model_name": None, "input_type": "image_bytes"},
            **{"params_override": "", "mixed_precision": None, "threads": None},
            **{"format": "saved_model", "max_image_pixels": 10**6, "add_masks": None},
        }
        stub = types.SimpleNamespace(FLAGS=Flags(values, given))
        monkeypatch.setattr(export_command, "flags", stub)
        export_command.main([""])

    return run


def test_export_writes_versions_that_a_server_serves(command, tmp_path, capsys):
    command(serving_kit=str(tmp_path / "kit"))
    text = capsys.readouterr().out
    assert f"{tmp_path}/kit/models/rectangles/1: takes image_bytes" in text
    assert "wrote models.config, monitoring.config, compose.yaml, kubernetes.yaml, batch" in text
    command(serving_kit=str(tmp_path / "kit"))
    text = capsys.readouterr().out
    assert f"{tmp_path}/kit/models/rectangles/2: takes image_bytes" in text
    assert "wrote" not in text
    assert "kept" not in text
    base = tmp_path / "kit/models/rectangles"
    assert {path.name for path in base.iterdir()} == {"1", "2"}
    server = served.model_server.ModelServer(base, "rectangles")
    try:
        assert server.num_warm_up == 4
        server.check("rectangles", 2)
    finally:
        server.stop()


@pytest.mark.slow
def test_a_second_model_in_a_kit(command, tmp_path, capsys):
    command(serving_kit=str(tmp_path / "kit"))
    command(serving_kit=str(tmp_path / "kit"), model_name="other")
    assert f"{tmp_path}/kit/models.config was there and is kept" in capsys.readouterr().out
    assert (tmp_path / "kit/models/other/1/saved_model.pb").exists()


def test_a_run_is_named_by_its_folder(command, tmp_path):
    run = tmp_path / "shapes"
    command(serving_kit=str(tmp_path / "kit"), experiment=str(run / "params.yaml"))
    assert (tmp_path / "kit/models/shapes/1/saved_model.pb").exists()


def test_a_folder_that_the_user_names_is_that_folder(command, tmp_path):
    command(export_dir=str(tmp_path / "models/a/7"), experiment="my run/params.yaml")
    names = {path.name for path in (tmp_path / "models/a/7").iterdir()}
    assert {"saved_model.pb", "variables", "assets", "assets.extra"} <= names
    assert not list(tmp_path.rglob("*.config"))


def test_a_bad_name_costs_nothing(command, tmp_path):
    with pytest.raises(SystemExit, match="model_name: 'a/b'"):
        command(serving_kit=str(tmp_path / "kit"), model_name="a/b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given", [{}, {"export_dir": ""}, {"serving_kit": ""}, {"export_dir": "a", "serving_kit": "b"}]
)
def test_one_of_both_folders(command, given):
    with pytest.raises(export_command.app.UsageError, match="either --export_dir"):
        command(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"export_dir": "a", "model_name": "shapes"}, "--model_name names a model in a --serving_"),
        (
            {"export_dir": "a", "input_type": "image_tensor", "max_image_pixels": 10**6},
            "--max_image_pixels bounds files",
        ),
    ],
)
def test_flags_that_would_do_nothing(command, monkeypatch, tmp_path, given, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        command(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node x}} No space left\n\t [[x]]"),
            "error: No space left",
        ),
        (ImportError("tf2onnx is not installed: pip install it"), "error: tf2onnx is not .*"),
    ],
)
def test_failures_are_one_line(command, monkeypatch, tmp_path, failure, line):
    def load(*_):
        raise failure

    monkeypatch.setattr(export_command.detector.Detector, "load", load)
    with pytest.raises(SystemExit) as error:
        command(export_dir=str(tmp_path / "m"))
    assert re.fullmatch(line, str(error.value))


@pytest.mark.slow
def test_a_full_disk_leaves_no_version_and_with_room_there_is_one(command, small_disk, tmp_path):
    """The disk grows in small steps; each time the export gets further, and says what it lacked."""
    command(serving_kit=str(tmp_path / "wide"))
    whole = {path.relative_to(tmp_path / "wide") for path in (tmp_path / "wide").rglob("*")}
    needed = sum(path.stat().st_size for path in (tmp_path / "wide").rglob("*") if path.is_file())
    base, lines = small_disk / "models" / "rectangles", []
    for size in (4, 12, *range(40, 4 * needed // 1024, needed // 1024 // 6)):
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(small_disk)], check=True)
        try:
            command(serving_kit=str(small_disk))
            break
        except SystemExit as ended:
            lines.append(str(ended))
        assert re.fullmatch(r"error: .*No space left on device.*", lines[-1]), lines
        assert str(small_disk) in lines[-1], lines
        assert not base.exists() or not list(base.iterdir())
        for name in ("models.config", "compose.yaml"):  # whole, or not there
            there = small_disk / name
            assert not there.exists() or there.read_text() == (tmp_path / "wide" / name).read_text()
    else:
        pytest.fail(f"never enough room: {lines}")
    assert len({re.sub(r"\d+", "N", line) for line in lines}) > 2, lines  # in several places
    assert {path.relative_to(small_disk) for path in small_disk.rglob("*")} == whole
    assert [path.name for path in base.iterdir()] == ["1"]
    server = served.model_server.ModelServer(base, "rectangles")
    try:
        server.check("rectangles", 1)
    finally:
        server.stop()
