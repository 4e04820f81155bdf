"""The manifests for Kubernetes: by its own schemas, by its strictest profile for pods, and to each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

SCHEMAS: Any = import_module("kubernetes_validate")  # which has no types
APART = {"kustomization.yaml", "servicemonitor.yaml", "secret.example.yaml"}
OLDEST = "1.29"


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "deploy" / "kubernetes"


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def manifests(folder: Path) -> dict[tuple[str, str], Any]:
    """All that is applied, by kind and name."""
    files = sorted(path for path in folder.glob("*.yaml") if path.name not in APART)
    found = {(each["kind"], each["metadata"]["name"]): each for path in files for each in documents(path)}
    assert len(found) == sum(len(documents(path)) for path in files)
    return found


@pytest.fixture(scope="module")
def pods(manifests: dict[tuple[str, str], Any]) -> dict[str, Any]:
    """The template of each pod, by name."""
    return {
        name: each["spec"]["template"]
        for (kind, name), each in manifests.items()
        if kind in {"Deployment", "StatefulSet"}
    }


@pytest.mark.parametrize("version", [OLDEST, SCHEMAS.latest_version()])
def test_every_manifest_is_as_kubernetes_has_it(folder: Path, version: str) -> None:
    for path in folder.glob("*.yaml"):
        if path.name not in {"kustomization.yaml", "servicemonitor.yaml"}:
            for each in documents(path):
                SCHEMAS.validate(each, version, strict=True)


def test_all_of_it_is_applied_and_in_one_namespace(folder: Path, manifests: dict[tuple[str, str], Any]) -> None:
    [kustomization] = documents(folder / "kustomization.yaml")
    assert sorted(kustomization["resources"]) == sorted(
        path.name for path in folder.glob("*.yaml") if path.name not in APART
    )
    apart = [each for name in ("servicemonitor.yaml", "secret.example.yaml") for each in documents(folder / name)]
    for (kind, _), each in [*manifests.items(), *[((one["kind"], ""), one) for one in apart]]:
        assert kind == "Namespace" or each["metadata"]["namespace"] == "llm-manifold"


def test_kubectl_builds_it(folder: Path, manifests: dict[tuple[str, str], Any]) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not there")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    built = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    assert built == manifests


def test_pods_keep_to_the_restricted_profile(pods: dict[str, Any], manifests: dict[tuple[str, str], Any]) -> None:
    """Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    labels = manifests["Namespace", "llm-manifold"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "persistentVolumeClaim"}
    for pod in pods.values():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["automountServiceAccountToken"] is False
        of_all = spec["securityContext"]
        assert of_all["runAsNonRoot"] is True
        assert of_all["runAsUser"] > 0
        assert of_all["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "hostPort" not in str(container["ports"])
            assert set(container["resources"]) == {"requests", "limits"}


def test_the_user_is_the_images(pods: dict[str, Any], stages: dict[str, Any]) -> None:
    context = pods["llm-manifold"]["spec"]["securityContext"]
    assert stages["runtime"].all("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]


def test_what_is_selected_is_there(manifests: dict[tuple[str, str], Any], pods: dict[str, Any]) -> None:
    every = [pod["metadata"]["labels"] for pod in pods.values()]

    def selects(wanted: dict[str, str]) -> bool:
        return [wanted.items() <= labels.items() for labels in every].count(True) == 1

    for (kind, name), each in manifests.items():
        spec = each.get("spec", {})
        if kind == "Service":
            assert selects(spec["selector"])
        elif kind in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            assert selects(spec["selector"]["matchLabels"])
        elif kind == "NetworkPolicy" and name != "nobody":
            assert selects(spec["podSelector"]["matchLabels"])
        elif kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert (target["kind"], target["name"]) in manifests
            assert spec["minReplicas"] >= 2
    spread = pods["llm-manifold"]["spec"]["topologySpreadConstraints"]
    assert all(selects(each["labelSelector"]["matchLabels"]) for each in spread)


def test_a_port_that_is_named_is_one_of_the_pods(manifests: dict[tuple[str, str], Any], pods: dict[str, Any]) -> None:
    named = {port["name"] for pod in pods.values() for each in pod["spec"]["containers"] for port in each["ports"]}
    used = set(re.findall(r'"(?:port|targetPort)": "(\w+)"', json.dumps([*manifests.values()])))
    assert used == named == {"http", "redis"}


def test_the_configuration_is_that_of_compose_and_its_secrets_are_mounted(
    root: Path, manifests: dict[tuple[str, str], Any], pods: dict[str, Any]
) -> None:
    text = manifests["ConfigMap", "llm-manifold"]["data"]["llm.yaml"]
    assert text == (root / "deploy" / "config" / "llm.yaml").read_text(encoding="utf-8")
    spec = pods["llm-manifold"]["spec"]
    [gateway] = spec["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in gateway["volumeMounts"]}
    assert mounts == {"config": "/etc/manifold", "secrets": "/run/secrets", "data": "/data", "tmp": "/tmp"}  # noqa: S108 - in the pod
    assert gateway["env"] == [{"name": "LLM_CONFIG", "value": f"{mounts['config']}/llm.yaml"}]
    [example] = documents(root / "deploy" / "kubernetes" / "secret.example.yaml")
    assert not any(example["stringData"].values())
    compose = yaml.safe_load((root / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    assert set(example["stringData"]) == set(compose["secrets"]) - {"grafana_password"}
    assert "@redis:6379/" in text
    assert ("Service", "redis") in manifests


def test_a_pod_has_time_to_leave_the_service_and_then_for_its_calls(
    manifests: dict[tuple[str, str], Any], pods: dict[str, Any]
) -> None:
    spec = pods["llm-manifold"]["spec"]
    [gateway] = spec["containers"]
    *_, script = gateway["lifecycle"]["preStop"]["exec"]["command"]
    assert script.startswith("kill -USR1 1; sleep ")
    seconds = script.rpartition(" ")[2]
    config = yaml.safe_load(manifests["ConfigMap", "llm-manifold"]["data"]["llm.yaml"])
    assert spec["terminationGracePeriodSeconds"] >= float(seconds) + config["gateway"]["drain"] + 5
    rollout = manifests["Deployment", "llm-manifold"]["spec"]["strategy"]["rollingUpdate"]
    assert rollout["maxUnavailable"] == 0
    probes = {name: gateway[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}


def test_the_monitor_reads_with_the_metrics_key(folder: Path, manifests: dict[tuple[str, str], Any]) -> None:
    [monitor] = documents(folder / "servicemonitor.yaml")
    [endpoint] = monitor["spec"]["endpoints"]
    service = manifests["Service", "llm-manifold"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"] == {"credentials": {"name": "llm-manifold", "key": "metrics_key"}}
    assert endpoint["path"] == "/v1/metrics"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_what_it_holds_is_plain_data(manifests: dict[tuple[str, str], Any]) -> None:
    json.dumps([*manifests.values()])  # no date, no octal that became something else
    for (kind, _), each in manifests.items():
        if kind == "Deployment":
            modes = [
                volume["secret"]["defaultMode"]
                for volume in each["spec"]["template"]["spec"]["volumes"]
                if "secret" in volume
            ]
            assert modes == [0o440]
