"""What `docker compose up` starts: by its schema, by what it promises, and its pieces as far as they run here."""

# ruff: noqa: ANN401 - what a YAML file holds

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    Tool = Callable[..., str]


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    return root / "deploy"


@pytest.fixture(scope="module")
def compose(folder: Path) -> Any:
    return yaml.safe_load((folder / "compose.yaml").read_text(encoding="utf-8"))


def test_it_is_as_the_compose_specification_has_it(folder: Path, tool: Tool) -> None:
    tool(
        *(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"),
        folder / "compose.yaml",
    )


def test_every_image_of_others_has_its_version(compose: Any) -> None:
    images = [service["image"] for service in compose["services"].values() if "build" not in service]
    assert len(images) == 3
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)


def test_the_gateway_alone_is_reached_from_elsewhere(compose: Any) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert published.pop("gateway") == ["${MANIFOLD_BIND:-0.0.0.0}:${MANIFOLD_PORT:-8000}:8000"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert published["redis"] == []
    assert compose["services"]["redis"]["networks"] == ["inside"]
    assert compose["networks"]["inside"] == {"internal": True}


def test_no_service_may_do_or_take_more_than_it_needs(compose: Any) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}


def test_each_waits_for_the_health_of_what_it_needs(compose: Any, root: Path) -> None:
    services = compose["services"]
    healthy = {name for name, service in services.items() if "healthcheck" in service}
    assert healthy | {"gateway"} == set(services)  # its own is in the image
    assert "HEALTHCHECK" in (root / "Dockerfile").read_text(encoding="utf-8")
    needed = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert needed == {
        "gateway": {"redis": {"condition": "service_healthy"}},
        "redis": {},
        "prometheus": {"gateway": {"condition": "service_healthy"}},
        "grafana": {"prometheus": {"condition": "service_healthy"}},
    }


def test_the_gateway_has_longer_to_stop_than_its_calls(compose: Any, folder: Path) -> None:
    config = yaml.safe_load((folder / "config" / "llm.yaml").read_text(encoding="utf-8"))
    grace = float(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace >= config["gateway"]["drain"] + 10


def test_what_is_mounted_is_there(compose: Any, folder: Path) -> None:
    for service in compose["services"].values():
        sources = [volume.split(":")[0] for volume in service["volumes"]]
        for source in sources:
            assert (folder / source).exists() if source.startswith(".") else source in compose["volumes"]
        assert set(service["secrets"]) <= set(compose["secrets"])


def test_no_password_stands_anywhere(compose: Any, folder: Path) -> None:
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert "password" not in name.lower() or value.startswith("/run/secrets/")
    config = (folder / "config" / "llm.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"/run/secrets/(\w+)", config)) == set(compose["services"]["gateway"]["secrets"])


def test_secrets_are_made_once_for_their_owner_alone(
    folder: Path, tmp_path: Path, compose: Any, forking: Callable[..., Any]
) -> None:
    (tmp_path / "secrets.sh").write_bytes((folder / "secrets.sh").read_bytes())
    key = forking(tmp_path, "keys", "create", "any", "--config", "/dev/null", "--quiet").out
    assert re.fullmatch(r"sk-manifold-\w{49}\n", key)
    stand_in = tmp_path / "manifold"  # for the program: what is asked of it, and a key of another name each time
    stand_in.write_text(f'echo "$@" >> asked\necho "{key.strip()}$3"\n', encoding="utf-8")

    def made(**more: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "MANIFOLD": f"sh {stand_in}", **more}
        command = ["sh", str(tmp_path / "secrets.sh")]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - ours

    first = made()
    assert first.returncode == 1
    assert "put the vendor's key into" in first.stderr
    second = made(OPENAI_API_KEY="sk-of-the-vendor")
    assert (second.returncode, second.stderr) == (0, "made secrets/openai_api_key\n")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()}
    assert set(files) == set(compose["secrets"])
    assert files["openai_api_key"] == "sk-of-the-vendor"
    assert all(files[name] == key.strip() + name for name in ("admin_key", "metrics_key"))
    assert all(re.fullmatch(r"[0-9a-f]{48}", files[name]) for name in ("redis_password", "grafana_password"))
    assert len(set(files.values())) == len(files)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    third = made()
    assert (third.returncode, third.stderr) == (0, "")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "secrets").iterdir()} == files
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked == [f"keys create {name} --config /dev/null --quiet" for name in ("admin_key", "metrics_key")]


def test_a_key_that_could_not_be_made_is_not_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets.sh").write_bytes((folder / "secrets.sh").read_bytes())
    command = ["sh", str(tmp_path / "secrets.sh")]
    done = subprocess.run(command, env=os.environ | {"MANIFOLD": "false"}, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 1
    assert done.stderr.endswith("error: nothing came for secrets/admin_key\n")
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == {"redis_password", "grafana_password"}


def test_prometheus_reads_the_gateways_metrics_with_their_key_and_the_rules(folder: Path, compose: Any) -> None:
    mounted = [volume.split(":")[:2] for volume in compose["services"]["prometheus"]["volumes"]]
    targets = {target: folder / source for source, target in mounted}
    config = yaml.safe_load(targets["/etc/prometheus/prometheus.yml"].read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    assert job["metrics_path"] == "/v1/metrics"
    assert job["authorization"] == {"credentials_file": "/run/secrets/metrics_key"}
    assert job["static_configs"] == [{"targets": ["gateway:8000"]}]
    [rules] = config["rule_files"]
    assert "groups" in yaml.safe_load(targets[rules].read_text(encoding="utf-8"))


def test_grafana_finds_its_source_and_its_dashboard(folder: Path, compose: Any) -> None:
    provisioning = folder / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    [found] = yaml.safe_load((provisioning / "dashboards" / "llm-manifold.yaml").read_text("utf-8"))["providers"]
    grafana = compose["services"]["grafana"]
    mounted = {target: folder / file for file, target, *_ in (volume.split(":") for volume in grafana["volumes"])}
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(found["options"]["path"])
    assert mounted[home].is_file()
    assert mounted["/etc/grafana/provisioning"] == provisioning


def test_redis_gets_its_password_from_the_file_and_in_no_command_line(compose: Any, tmp_path: Path) -> None:
    """The command's own words, with a program in the server's place that shows what it is told."""
    *_, script = compose["services"]["redis"]["command"]
    (tmp_path / "redis_password").write_text("f00d", encoding="utf-8")
    script = script.replace("$$", "$").replace("/run/secrets", str(tmp_path)).replace("valkey-server -", "cat")
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)  # noqa: S603, S607 - the file's
    lines = told.stdout.splitlines()
    assert lines[-1] == "requirepass f00d"
    assert "appendonly yes" in lines


def test_redis_is_its_containers_first_process_so_that_it_hears_when_to_stop(
    folder: Path, compose: Any, tmp_path: Path
) -> None:
    [stateful] = [
        each
        for each in yaml.safe_load_all((folder / "kubernetes" / "redis.yaml").read_text("utf-8"))
        if each["kind"] == "StatefulSet"
    ]
    [pod] = stateful["spec"]["template"]["spec"]["containers"]
    (tmp_path / "redis_password").write_text("f00d", encoding="utf-8")
    for script in (compose["services"]["redis"]["command"][-1].replace("$$", "$"), pod["args"][-1]):
        own = script.replace("/run/secrets", str(tmp_path)).replace("valkey-server -", "sh -c 'echo $$; cat'")
        with subprocess.Popen(["sh", "-c", own], stdout=subprocess.PIPE, text=True) as first:  # noqa: S603, S607 - the file's
            told, _ = first.communicate()
        assert told.splitlines()[0] == str(first.pid)
        assert told.splitlines()[-1] == "requirepass f00d"
