"""What a declared service lacks anywhere: `python -m waybill_dev.checks.services CHECKOUT` prints it by name."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from waybill_dev.base.declaration import SERVICES, Service
from waybill_dev.services.registration import COMPONENTS, K8S, missing


def complaints(checkout: Path, services: Mapping[str, Service]) -> Iterator[str]:
    for service in services.values():
        for file in files_of(service):
            if not (checkout / file).exists():
                yield f"{service.name} lacks the file {file}"
    yield from missing(checkout, services)
    yield from _undeclared(checkout, services)
    yield from _compose(yaml.safe_load((checkout / "deploy" / "compose.yml").read_text()), services)
    yield from _gateway(yaml.safe_load((checkout / "deploy" / "gateway" / "envoy.yaml").read_text()), services)
    for overlay in ("local", "production"):
        file = f"{K8S}/overlays/{overlay}/kustomization.yaml"
        generators = yaml.safe_load((checkout / file).read_text())["configMapGenerator"]
        for name in _lacking({f"{name}-settings": name for name in services}, {found["name"] for found in generators}):
            yield f"{file}: {name} in configMapGenerator"


def files_of(service: Service) -> Iterator[str]:
    """What each service has, whatever it does."""
    root, name = f"services/{service.name}", service.name
    yield from (f"{root}/{file}" for file in ("pyproject.toml", "requirements.lock", "migrations/env.py"))
    code = ["__main__.py", "app.py", "settings.py"]
    code += ["events.py"] if "relay" in service.roles else []
    code += ["consumers.py"] if "consume" in service.roles else []
    yield from (f"{root}/src/{name}/{file}" for file in code)
    yield f"contracts/{name}/openapi.json"
    yield from (f"{K8S}/base/{name}/{part}.yaml" for part in (*service.roles, "migrate", "service-account"))
    yield f"{K8S}/base/{name}/kustomization.yaml"
    parts = ("broker/users", "broker/topology", "databases", "gateway/routes", "network-policies")
    yield from (f"{COMPONENTS}/{part}/{name}.yaml" for part in parts)


def _undeclared(checkout: Path, services: Mapping[str, Service]) -> Iterator[str]:
    for file in sorted((checkout / "services").glob("*/pyproject.toml")):
        if file.parent.name not in services:
            yield f"services.toml does not declare services/{file.parent.name}"


def _compose(compose: dict[str, Any], services: Mapping[str, Service]) -> Iterator[str]:
    wanted = {f"{name}-{role}": name for name, service in services.items() for role in (*service.roles, "migrate")}
    for container in _lacking(wanted, compose["services"]):
        yield f"deploy/compose.yml: {wanted[container]} lacks the container {container}"


def _gateway(envoy: dict[str, Any], services: Mapping[str, Service]) -> Iterator[str]:
    resources = envoy["static_resources"]
    wanted = {cluster: name for name, service in services.items() for cluster in service.clusters}
    for cluster in _lacking(wanted, {found["name"] for found in resources["clusters"]}):
        yield f"deploy/gateway/envoy.yaml: {wanted[cluster]} lacks the cluster {cluster}"
    internal = {cluster: name for cluster, name in wanted.items() if cluster != name}
    for listener in _lacking(internal, {found["name"] for found in resources["listeners"]}):
        yield f"deploy/gateway/envoy.yaml: {internal[listener]} lacks the listener {listener}"


def _lacking(wanted: Mapping[str, str], found: Any) -> list[str]:
    return [name for name in wanted if name not in found]


if __name__ == "__main__":
    found = list(complaints(Path(sys.argv[1]), SERVICES))
    print("\n".join(found))
    sys.exit(1 if found else 0)
