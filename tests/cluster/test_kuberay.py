"""`kuberay.yaml`: by KubeRay's and Kubernetes' schemas, and by the part of Ray that reads it in a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import validate_config

from tests.cluster.files import CLUSTER, documents

DOCUMENTS = documents("kuberay.yaml")
SCHEMA = json.loads((Path(__file__).parent / "kuberay-schema.json").read_text())


def of_kind(kind: str) -> dict[str, Any]:
    (document,) = [document for document in DOCUMENTS if document["kind"] == kind]
    return document


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template, under a name."""
    cluster, job = of_kind("RayCluster")["spec"], of_kind("RayJob")["spec"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    yield "worker", cluster["workerGroupSpecs"][0]["template"]["spec"]
    yield "submitter", job["submitterPodTemplate"]["spec"]
    yield "mlflow", of_kind("Deployment")["spec"]["template"]["spec"]


PODS = dict(pods())


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_kuberays_kinds_have_no_key_that_it_does_not_know(kind: str) -> None:
    jsonschema.validate(of_kind(kind), SCHEMA)
    broken = {**of_kind(kind), "spec": {**of_kind(kind)["spec"], "autoscaling": True}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_kubernetes_own_kinds_fit_its_schema(document: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    if document["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize("name", PODS)
def test_pod_templates_fit_kubernetes_schema_of_a_pod(name: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": PODS[name]}
    kubernetes_validate.validate(pod, "1.30", strict=True)
    broken = {**pod, "spec": {**PODS[name], "contaners": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.30", strict=True)


def test_rays_autoscaler_reads_a_head_without_trials_and_gpu_workers_from_none() -> None:
    cluster = of_kind("RayCluster")
    cluster = {**cluster, "metadata": {**cluster["metadata"], "namespace": "default"}}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    head, gpu = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (8, 1)
    assert config["idle_timeout_minutes"] == 5


def test_it_is_the_ray_that_is_installed() -> None:
    assert of_kind("RayCluster")["spec"]["rayVersion"] == version("ray")


def test_the_token_is_on_and_the_job_has_it() -> None:
    assert of_kind("RayCluster")["spec"]["authOptions"] == {"mode": "token"}
    variables = {item["name"]: item for item in PODS["submitter"]["containers"][0]["env"]}
    assert variables["RAY_AUTH_MODE"]["value"] == "token"
    secret = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret["name"] == of_kind("RayCluster")["metadata"]["name"]


def test_the_job_runs_on_the_cluster_that_stands_beside_it() -> None:
    job, cluster = of_kind("RayJob"), of_kind("RayCluster")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["spec"]["jobId"] == f"tunekit-{job['metadata']['name']}"
    assert f"search-or-resume.sh {job['metadata']['name']} " in job["spec"]["entrypoint"]


def test_every_volume_claim_and_mount_exists() -> None:
    claims = {d["metadata"]["name"] for d in DOCUMENTS if d["kind"] == "PersistentVolumeClaim"}
    for pod in PODS.values():
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        mounts = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())}
        assert mounts == volumes
        wanted = [
            v["persistentVolumeClaim"]["claimName"]
            for v in pod.get("volumes", ())
            if len(v) > 1 and "persistentVolumeClaim" in v
        ]
        assert set(wanted) <= claims


def test_mlflow_answers_to_the_name_under_which_the_driver_calls_it() -> None:
    (service,) = [document for document in DOCUMENTS if document["kind"] == "Service"]
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    variables = {item["name"]: item.get("value") for item in PODS["head"]["containers"][0]["env"]}
    assert variables["MLFLOW_TRACKING_URI"] == f"http://{address}"
    command = PODS["mlflow"]["containers"][0]["command"]
    assert command[command.index("--allowed-hosts") + 1] == address
    assert (CLUSTER / command[0]).exists()


def test_workers_get_no_password() -> None:
    assert "MLFLOW" not in json.dumps(PODS["worker"])
