"""Which machines train one run together: what TF_CONFIG, or the experiment's fields, say of it.

Either is enough. TensorFlow reads TF_CONFIG, which Kubernetes' operators and Vertex AI set; the
fields are Model Garden's, for those who start the commands themselves:

    TF_CONFIG='{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    runtime.worker_hosts=a:1,b:1  runtime.task_index=1

What contradicts itself is refused: it would train on one machine alone, or wait for ever.
"""

import json
import os
from typing import Any, NamedTuple

from official.core import config_definitions

STRATEGY = "multi_worker_mirrored"
_FIELD = "runtime.distribution_strategy"
_ROLES = ("chief", "worker")  # the chief is the first of the workers


class Cluster(NamedTuple):
    """The processes of a run, one per machine.

    Attributes:
      hosts: "host:port" of each, the chief's first.
      task_index: of this process among them.
    """

    hosts: tuple[str, ...]
    task_index: int

    @property
    def others(self) -> list[str]:
        """Hosts of the other processes."""
        return [host for k, host in enumerate(self.hosts) if k != self.task_index]


def find(runtime: config_definitions.RuntimeConfig) -> Cluster | None:
    """Return the machines that this process belongs to; None for a run of one machine.

    Args:
      runtime: its strategy, `worker_hosts` and `task_index`; TF_CONFIG is read too.

    Raises:
      ValueError: they contradict each other, or say nothing where they should; with the value.
    """
    strategy = runtime.distribution_strategy
    in_environment, in_fields = _of_environment(), _of_fields(runtime)
    if strategy != STRATEGY:
        if in_fields:
            raise ValueError(
                f"runtime.worker_hosts: {runtime.worker_hosts!r}, but {_FIELD} is {strategy!r}, "
                f"which would train on this machine alone. Set it to {STRATEGY}, or leave the "
                "hosts out"
            )
        if in_environment and len(in_environment.hosts) > 1:
            raise ValueError(
                f"TF_CONFIG names {len(in_environment.hosts)} machines "
                f"({', '.join(in_environment.hosts)}), but {_FIELD} is {strategy!r}, which would "
                f"train on this one alone. Set it to {STRATEGY}, or unset TF_CONFIG"
            )
        return None
    if in_environment and in_fields and in_environment != in_fields:
        raise ValueError(
            f"TF_CONFIG says {_said(in_environment)}; runtime.worker_hosts and task_index say "
            f"{_said(in_fields)}. Give one of the two"
        )
    found = in_environment or in_fields
    if not found:
        raise ValueError(
            f"{_FIELD}: {STRATEGY} needs to know its machines: set the environment variable "
            "TF_CONFIG, or runtime.worker_hosts=HOST:PORT,HOST:PORT,... and runtime.task_index. "
            "For one machine, with all its GPUs, it is 'mirrored'"
        )
    return found


def check_alone(runtime: config_definitions.RuntimeConfig, what: str) -> None:
    """Refuse several machines for what runs on one.

    Args:
      runtime: as for `find`.
      what: the command.

    Raises:
      ValueError: there are several; or see `find`.
    """
    machines = find(runtime)
    if machines and machines.others:
        raise ValueError(
            f"{what} runs on one machine, but there are {', '.join(machines.hosts)}: start it on "
            "one of them, without TF_CONFIG and runtime.worker_hosts"
        )


def tell_tensorflow(machines: Cluster) -> None:
    """Have TF_CONFIG name the machines, since TensorFlow asks nobody else.

    Some schedulers set it without a cluster, to `{"environment": "cloud"}` for one.
    """
    if _of_environment():
        return
    task = {"type": "worker", "index": machines.task_index}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": list(machines.hosts)}, "task": task}
    )


def of_any_machine(runtime: config_definitions.RuntimeConfig) -> config_definitions.RuntimeConfig:
    """Return the fields without the machines, so that params.yaml is good for any other ones."""
    if runtime.distribution_strategy != STRATEGY:
        return runtime
    return runtime.replace(distribution_strategy="mirrored", worker_hosts=None, task_index=-1)


def _said(cluster: Cluster) -> str:
    return f"worker {cluster.task_index} of {', '.join(cluster.hosts)}"


def _of_fields(runtime: config_definitions.RuntimeConfig) -> Cluster | None:
    text, index = runtime.worker_hosts, runtime.task_index
    if not text:
        if index >= 0:
            raise ValueError(
                f"runtime.task_index: {index} of which machines? runtime.worker_hosts is not set"
            )
        return None
    hosts = _checked([host.strip() for host in text.split(",")], f"runtime.worker_hosts: {text!r}")
    if index < 0 and len(hosts) > 1:
        raise ValueError(
            f"runtime.worker_hosts: {text!r} names {len(hosts)} machines; runtime.task_index has "
            f"to say which of them this is, 0 to {len(hosts) - 1}"
        )
    return _cluster(hosts, max(index, 0), f"runtime.task_index: {index}")


def _of_environment() -> Cluster | None:
    text = os.environ.get("TF_CONFIG", "").strip()
    where = f"TF_CONFIG ({text})"
    try:
        said = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{where}: must be a JSON object with 'cluster' and 'task'")
    cluster = said.get("cluster") or {}
    if not said or (not cluster and not said.get("task")):
        return None
    if not isinstance(cluster, dict) or not cluster:
        raise ValueError(f"{where}: 'cluster' must be {{'worker': ['HOST:PORT', ...]}}")
    strange = sorted(set(cluster) - set(_ROLES))
    if strange:
        raise ValueError(
            f"{where}: 'cluster' has {', '.join(map(repr, strange))}; here every machine is a "
            "'worker' (the first may be called 'chief'), and evaluation is shared out among them"
        )
    hosts: list[str] = []
    for role in _ROLES:
        of_role = cluster.get(role, [])
        if not isinstance(of_role, list) or (role == "chief" and len(of_role) > 1):
            raise ValueError(f"{where}: {role!r} must be a list of hosts, and there is one chief")
        hosts += of_role
    return _cluster(_checked(hosts, where), _index(said.get("task"), cluster, where), where)


def _index(task: Any, cluster: dict[str, list[str]], where: str) -> int:
    """Return the place of TF_CONFIG's task among all machines."""
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise ValueError(f"{where}: 'task' must be {{'type': 'worker', 'index': N}}")
    role, index = task["type"], task["index"]
    if not isinstance(role, str) or role not in cluster:
        raise ValueError(
            f"{where}: 'task' is a {role!r}, which 'cluster' does not have. To evaluate beside a "
            "run, start --mode=continuous_eval without TF_CONFIG"
        )
    try:
        place = int(index)
    except (TypeError, ValueError):
        place = -1
    if not 0 <= place < len(cluster[role]):
        raise ValueError(
            f"{where}: 'index' is {index!r}, but there are {len(cluster[role])} of type {role!r}, "
            "counted from 0"
        )
    return place + (len(cluster.get("chief", [])) if role == "worker" else 0)


def _checked(hosts: list[Any], where: str) -> tuple[str, ...]:
    for host in hosts:
        name, _, port = host.rpartition(":") if isinstance(host, str) else ("", "", "")
        if not name or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"{where}: {host!r} is not HOST:PORT")
        if hosts.count(host) > 1:
            raise ValueError(f"{where}: {host!r} is there more than once")
    return tuple(hosts)


def _cluster(hosts: tuple[str, ...], index: int, where: str) -> Cluster:
    if index >= len(hosts):
        raise ValueError(
            f"{where}: there are {len(hosts)} machines, counted from 0: {', '.join(hosts)}"
        )
    return Cluster(hosts, index)
