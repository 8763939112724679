"""The folder that a TensorFlow Serving is started with: versions of models, and files beside them.

    KIT/models/NAME/1/...            the SavedModel; the next export is 2
    KIT/models.config                which models are served           --model_config_file
    KIT/batching_parameters.txt      how requests are put together     --batching_parameters_file
    KIT/monitoring.config            numbers for Prometheus            --monitoring_config_file
    KIT/compose.yaml                 a container
    KIT/kubernetes.yaml              a deployment, its service and its volume

The server sees the folder as /kit, in both containers. docs/serving.md explains every line. A file
that is there is the user's: it is never written over.

Source: flags and messages are those of the sources of TensorFlow Serving: model_servers/main.cc,
  config/model_server_config.proto, config/monitoring_config.proto and
  servables/tensorflow/session_bundle_config.proto.
"""

import os
import re
from typing import NamedTuple

import tensorflow as tf

from mrcnn_tf.console import whole_file
from mrcnn_tf.images import storage

IMAGE = "tensorflow/serving:2.20.0"  # the release that belongs to this TensorFlow
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_MODELS_CONFIG = """\
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/kit/models/{name}"
    model_platform: "tensorflow"
    # The newest version is served, and replaced without a gap when the next one appears.
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
}}
"""

_BATCHING_PARAMETERS = """\
# Read only with --enable_batching. A request may hold 16 pictures; the network gets up to 4 at
# once, of any requests. allowed_batch_sizes is left out: batches would be filled up with copies
# of pictures, which cost as much as pictures.
max_batch_size { value: 16 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 4 }
# How long a picture waits for others, in microseconds.
batch_timeout_micros { value: 10000 }
# Batches that run side by side, and that wait; beyond those a request is refused (UNAVAILABLE).
num_batch_threads { value: 2 }
max_enqueued_batches { value: 50 }
"""

_MONITORING_CONFIG = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

_COMPOSE = """\
services:
  serving:
    image: {image}
    restart: unless-stopped
    ports:
      - "8500:8500"  # gRPC
      - "8501:8501"  # REST
    volumes:
      - .:/kit:ro
    command:
      - --model_config_file=/kit/models.config
      - --monitoring_config_file=/kit/monitoring.config
      - --rest_api_timeout_in_ms=60000
{batching}
    healthcheck:
      # The ports open once the model is loaded and warmed up.
      test: ["CMD", "bash", "-c", "exec 3<>/dev/tcp/localhost/8501"]
      interval: 10s
      start_period: 120s
"""

_BATCHING = (
    "# On a GPU: requests of several clients in one batch.",
    "# - --enable_batching",
    "# - --batching_parameters_file=/kit/batching_parameters.txt",
)
_NO_BATCHING = ("# No batching: pictures or masks of unequal sizes fit into no batch.",)

_KUBERNETES = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: "{label}-kit"  # holds this folder
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 5Gi
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{label}"
spec:
  replicas: 1
  selector:
    matchLabels: {{app: "{label}"}}
  template:
    metadata:
      labels: {{app: "{label}"}}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8501"
        prometheus.io/path: /monitoring/prometheus/metrics
    spec:
      containers:
        - name: serving
          image: {image}
          args:
            - --model_config_file=/kit/models.config
            - --monitoring_config_file=/kit/monitoring.config
            - --rest_api_timeout_in_ms=60000
            # TensorFlow counts the machine's cores, not the container's: as many as the limit.
            - --tensorflow_intra_op_parallelism=2
            - --tensorflow_inter_op_parallelism=2
{batching}
          ports:
            - {{name: grpc, containerPort: 8500}}
            - {{name: rest, containerPort: 8501}}
          resources:
            # A request decodes up to 8 pictures at a time, each of up to --max_image_pixels (of
            # the export) x 15 bytes: 7.7 GB at 64 million. With smaller pictures less is enough.
            requests: {{cpu: "2", memory: 2Gi}}
            limits: {{cpu: "2", memory: 10Gi}}
          volumeMounts:
            - {{name: kit, mountPath: /kit, readOnly: true}}
          startupProbe:  # loading and warming up: up to five minutes
            httpGet: {{path: /v1/models/{name}/metadata, port: rest}}
            periodSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {{path: /v1/models/{name}/metadata, port: rest}}
            periodSeconds: 10
            timeoutSeconds: 5
      volumes:
        - name: kit
          persistentVolumeClaim:
            claimName: "{label}-kit"
            readOnly: true
---
apiVersion: v1
kind: Service
metadata:
  name: "{label}"
spec:
  selector: {{app: "{label}"}}
  ports:
    - {{name: grpc, port: 8500, targetPort: grpc}}
    - {{name: rest, port: 8501, targetPort: rest}}
"""


class Written(NamedTuple):
    """What became of the files beside the models.

    Attributes:
      new: names of those that were written.
      kept: names of those that were there and say something else.
    """

    new: list[str]
    kept: list[str]


def check_name(model_name: str) -> None:
    """Raise ValueError unless a name can be a folder's, a URL's and a configuration's."""
    if not _NAME.fullmatch(model_name):
        raise ValueError(
            f"model_name: {model_name!r}; letters, digits, '.', '_' and '-', and the first of them "
            "a letter or a digit"
        )


def next_version(kit: str, model_name: str) -> str:
    """Return the folder of the next version: one above the highest number that is there.

    Numbers are compared as TensorFlow Serving does, which serves the highest.
    """
    folder = os.path.join(kit, "models", model_name)
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.exists(folder) else []
    taken = [int(name.rstrip("/")) for name in names if name.rstrip("/").isdecimal()]
    return os.path.join(folder, str(max(taken, default=0) + 1))


def write(kit: str, model_name: str, input_type: str, added_masks: str | None) -> Written:
    """Write the files beside the models that are not there yet.

    Args:
      kit: the folder.
      model_name: checked by `check_name`.
      input_type: of the export. Requests of "image_tensor" cannot be put together: each has the
        size of its pictures.
      added_masks: of the export, see `full_masks.KINDS`. Answers of "pasted" cannot be put together
        where a server splits a large request: each has the size of its largest picture.
    """
    may_batch = input_type != "image_tensor" and added_masks != "pasted"
    new, kept = [], []
    storage.make_folder(kit)
    for name, text in _files(model_name, may_batch).items():
        path = os.path.join(kit, name)
        if not storage.is_file(path):
            whole_file.write(path, text)  # half of one would be kept as if it were the user's
            new.append(name)
        elif storage.read(path) != text.encode("utf-8"):
            kept.append(name)
    return Written(new, kept)


def _files(model_name: str, may_batch: bool) -> dict[str, str]:
    fields = {"name": model_name, "label": _label(model_name), "image": IMAGE}
    batching = _BATCHING if may_batch else _NO_BATCHING
    files = {
        "models.config": _MODELS_CONFIG.format(**fields),
        "monitoring.config": _MONITORING_CONFIG,
        "compose.yaml": _COMPOSE.format(**fields, batching=_indented(batching, 6)),
        "kubernetes.yaml": _KUBERNETES.format(**fields, batching=_indented(batching, 12)),
    }
    if may_batch:
        files["batching_parameters.txt"] = _BATCHING_PARAMETERS
    return files


def _label(model_name: str) -> str:
    """Return a name that Kubernetes takes: lower case, digits and '-', first a letter (RFC 1035).

    Of 63 characters it leaves 4 for "-kit".
    """
    label = re.sub(r"[^a-z0-9]+", "-", model_name.lower())
    if not label[0].isalpha():
        label = f"model-{label}"
    return label[:59].strip("-")


def _indented(lines: tuple[str, ...], columns: int) -> str:
    return "\n".join(" " * columns + line for line in lines)
