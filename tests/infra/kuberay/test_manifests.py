"""KubeRay's manifests: strict schemas of Kubernetes and of KubeRay, and what a closed cluster must have."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import namespace
import pytest
import yaml

KUBERAY = namespace.REPOSITORY / "infra" / "kuberay"
SCHEMAS = namespace.REPOSITORY.parent / "shared" / "crds"
CUSTOM = {"RayCluster": "raycluster-v1.7.0.schema.json", "RayJob": "rayjob-v1.7.0.schema.json"}
DOCUMENTS = [
    (path.name, document)
    for path in sorted(KUBERAY.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
CLUSTER = next(document for _, document in DOCUMENTS if document["kind"] == "RayCluster")
JOB = next(document for _, document in DOCUMENTS if document["kind"] == "RayJob")


def templates(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod templates by group."""
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


def pods() -> dict[str, dict[str, Any]]:
    """Specifications of all pods that we start."""
    found = {f"ray {name}": template["spec"] for name, template in templates(CLUSTER["spec"]).items()}
    for _, document in DOCUMENTS:
        if document["kind"] in ("Deployment", "StatefulSet"):
            found[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
    return found


def bytes_of(quantity: str) -> int:
    number = quantity.rstrip("KMGi")
    return int(number) * {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[quantity[len(number) :]]


def faults(name: str, pod: dict[str, Any]) -> list[str]:
    """What an open or greedy pod would have."""
    found = []
    user = pod.get("securityContext", {})
    if not user.get("runAsNonRoot") or not user.get("runAsUser"):
        found.append("runs as root")
    if user.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp")
    if name != "ray head" and pod.get("automountServiceAccountToken") is not False:
        found.append("holds a token of the API server")  # the head's autoscaler needs one
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"] + pod.get("initContainers", []):
        closed = container.get("securityContext", {})
        if closed.get("allowPrivilegeEscalation") is not False or closed["capabilities"] != {"drop": ["ALL"]}:
            found.append("privileges")
        if not closed.get("readOnlyRootFilesystem"):
            found.append("writable root")
        if not {"cpu", "memory"} <= container["resources"]["limits"].keys():
            found.append("no limits")
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            found.append("no exact tag")
        for variable in container.get("env", []):
            secret = any(word in variable["name"].lower() for word in ("password", "secret", "token", "key"))
            if (secret and not str(variable["value"]).startswith("/run/secrets/")) or "@" in variable.get(
                "value", ""
            ).replace("mlflow@postgres", ""):
                found.append(f"secret in {variable['name']}")
    for volume in volumes.values():
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            found.append("a volume without a limit")
    if name.startswith("ray") and volumes.get("shm", {}).get("emptyDir", {}).get("medium") != "Memory":
        found.append("no shared memory")
    return found


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=[f"{n}-{d['kind']}" for n, d in DOCUMENTS])
def test_documents_follow_their_schemas(name, document):
    if document["kind"] in CUSTOM:
        if not SCHEMAS.is_dir():
            pytest.skip(f"KubeRay's schemas are not at {SCHEMAS}")
        schema = json.loads((SCHEMAS / CUSTOM[document["kind"]]).read_text())
        validator = jsonschema.validators.validator_for(schema)(
            schema
        )  # validate() would judge the schema first
        validator.validate(document)
        with pytest.raises(jsonschema.ValidationError, match="replicaz"):
            validator.validate({**document, "spec": {"replicaz": 1}})
    elif document["kind"] != "Kustomization":
        import kubernetes_validate

        kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("group", templates(CLUSTER["spec"]))
def test_pod_templates_are_pods(group):
    """KubeRay's schema is lenient about what Kubernetes will refuse later."""
    import kubernetes_validate

    template = templates(CLUSTER["spec"])[group]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template["metadata"]}}
    kubernetes_validate.validate({**pod, "spec": template["spec"]}, "1.37", strict=True)


def test_the_job_has_the_clusters_specification():
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]
    assert JOB["spec"]["shutdownAfterJobFinishes"] and JOB["spec"]["backoffLimit"] > 0
    assert JOB["spec"]["activeDeadlineSeconds"] > 0, "a job whose head is gone runs for ever"


def test_the_cluster_asks_for_a_token_and_scales():
    spec = CLUSTER["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "reptok-ray"}
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    for group in groups.values():
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        keys = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}
        assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= keys
    (worker,) = groups["gpu"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" in {t["key"] for t in groups["gpu"]["template"]["spec"]["tolerations"]}
    assert "nvidia.com/gpu" not in str(groups["cpu"])


def test_shared_memory_is_above_the_object_store():
    for group in CLUSTER["spec"]["workerGroupSpecs"]:
        store = int(group["rayStartParams"]["object-store-memory"])
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert bytes_of(volumes["shm"]["emptyDir"]["sizeLimit"]) > store


@pytest.mark.parametrize("name", pods())
def test_pods_are_closed(name):
    assert faults(name, pods()[name]) == []


def container(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["containers"][0]


BREAK: dict[str, Callable[[dict[str, Any]], Any]] = {
    "runs as root": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "no seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "holds a token of the API server": lambda pod: pod.pop("automountServiceAccountToken"),
    "privileges": lambda pod: container(pod)["securityContext"].update(capabilities={"drop": []}),
    "writable root": lambda pod: container(pod)["securityContext"].pop("readOnlyRootFilesystem"),
    "no limits": lambda pod: container(pod)["resources"]["limits"].pop("memory"),
    "no exact tag": lambda pod: container(pod).update(image="reptok:latest"),
    "secret in MLFLOW_TRACKING_PASSWORD": lambda pod: container(pod)["env"].append(
        {"name": "MLFLOW_TRACKING_PASSWORD", "value": "x"}
    ),
    "secret in DATABASE": lambda pod: container(pod)["env"].append(
        {"name": "DATABASE", "value": "postgresql://me:pw@db/x"}
    ),
    "a volume without a limit": lambda pod: pod["volumes"].append({"name": "x", "emptyDir": {}}),
    "no shared memory": lambda pod: [
        v["emptyDir"].pop("medium") for v in pod["volumes"] if v["name"] == "shm"
    ],
}


@pytest.mark.parametrize("fault", BREAK)
def test_an_open_pod_is_noticed(fault):
    pod = copy.deepcopy(pods()["ray cpu"])
    BREAK[fault](pod)
    assert faults("ray cpu", pod) == [fault]


def test_nothing_reaches_the_cluster_but_what_is_named():
    policies = {d["metadata"]["name"]: d["spec"] for _, d in DOCUMENTS if d["kind"] == "NetworkPolicy"}
    assert policies["reptok-closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}, (
        "all pods, and no rule"
    )
    labels = templates(CLUSTER["spec"])["head"]["metadata"]["labels"]
    assert all(t["metadata"]["labels"] == labels for t in templates(CLUSTER["spec"]).values())
    within, *others = policies["reptok-ray"]["ingress"]
    assert policies["reptok-ray"]["podSelector"]["matchLabels"] == labels
    assert within == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert {port["port"] for rule in others for port in rule["ports"]} == {8265, 8080}
    for name, spec in policies.items():
        for rule in spec.get("ingress", []):
            assert rule.get("from"), f"{name} lets anybody in"
    (rule,) = policies["reptok-postgres"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "mlflow"}}}]


def test_no_secret_is_a_document_and_all_files_are_applied():
    assert not [name for name, document in DOCUMENTS if document["kind"] == "Secret"]
    (listed,) = [document["resources"] for _, document in DOCUMENTS if document["kind"] == "Kustomization"]
    assert set(listed) | {"kustomization.yaml", "job.yaml"} == {path.name for path in KUBERAY.glob("*.yaml")}


def test_the_command_line_of_the_validator_agrees():
    plain = [
        KUBERAY / name for name in ("mlflow.yaml", "networkpolicy.yaml", "storage.yaml", "namespace.yaml")
    ]
    tool = Path(namespace.BIN) / "kubernetes-validate"
    subprocess.run([tool, "--strict", *plain], check=True, capture_output=True, timeout=60)
