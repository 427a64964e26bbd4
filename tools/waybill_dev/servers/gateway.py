"""Envoy, with the configuration that compose uses; here only addresses differ, and endpoints come from files.

A file per cluster lists its endpoints: Envoy sees it replaced, so `scale` and restarts reach it without a restart
of its own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from waybill_dev.base.declaration import SERVICES
from waybill_dev.base.probes import answers_http, get_text
from waybill_dev.base.program import Program, base_environment
from waybill_dev.base.state import LOOPBACK, State
from waybill_dev.base.wheels import package_folder

PREFERRED_PORT = 8080
CLUSTERS = tuple(cluster for service in SERVICES.values() for cluster in service.clusters)
LISTENERS = ("public", *(cluster for cluster in CLUSTERS if cluster.endswith("-internal")))
FILES_IN_IMAGE = "/etc/envoy/"


@dataclass(frozen=True)
class Endpoint:
    """`health_port` answers /health/ready for it."""

    port: int
    health_port: int


class Gateway:
    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.folder / "gateway"
        self._source = state.checkout / "deploy" / "gateway"
        preferred = {"public": PREFERRED_PORT}
        self._ports = {name: state.port(f"gateway-{name}", preferred=preferred.get(name)) for name in LISTENERS}
        self._admin_port = state.port("gateway-admin")

    @property
    def port(self) -> int:
        return self._ports["public"]

    @property
    def admin_port(self) -> int:
        return self._admin_port

    def url(self, listener: str = "public") -> str:
        return f"http://{LOOPBACK}:{self._ports[listener]}"

    def program(self, *, cors_origins: str) -> Program:
        """`cors_origins` is a JSON list."""
        (self._folder / "endpoints").mkdir(parents=True, exist_ok=True)
        configuration = yaml.safe_load(
            (self._source / "envoy.yaml").read_text().replace(FILES_IN_IMAGE, f"{self._source}/")
        )
        file = self._folder / "envoy.json"
        file.write_text(json.dumps(self._localised(configuration), indent=1))

        async def ready() -> bool:
            return await answers_http(self._ports["public"], "/health")

        return Program(
            name="gateway",
            command=(
                str(package_folder("envoy") / "_bin" / "envoy"),
                *("-c", str(file), "--concurrency", "2", "--disable-hot-restart"),
                *("--log-level", "warning", "--drain-time-s", "1"),
            ),
            log=self._state.logs / "gateway.log",
            ready=ready,
            environment={**base_environment(), "WAYBILL_CORS_ORIGINS": cors_origins},
            stop_seconds=5,
        )

    def publish(self, clusters: Mapping[str, Sequence[Endpoint]]) -> None:
        """Sends each cluster's traffic to these endpoints from now on; Envoy checks their health itself."""
        for cluster, endpoints in clusters.items():
            self._endpoints_file(cluster).parent.mkdir(parents=True, exist_ok=True)
            assignment = {
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": [_as_envoy(endpoint) for endpoint in endpoints]}],
            }
            content = json.dumps({"resources": [assignment]})
            file = self._endpoints_file(cluster)
            if not file.exists() or file.read_text() != content:
                new = file.with_suffix(".new")
                new.write_text(content)
                new.replace(file)  # Envoy watches for a move

    async def sends_to(self, cluster: str, port: int) -> bool:
        """Whether Envoy has the endpoint and finds it healthy."""
        clusters = await get_text(self._admin_port, "/clusters")
        return f"{cluster}::{LOOPBACK}:{port}::health_flags::healthy" in clusters

    def _localised(self, configuration: dict[str, Any]) -> dict[str, Any]:
        configuration["admin"]["address"]["socket_address"]["port_value"] = self._admin_port
        for listener in configuration["static_resources"]["listeners"]:
            address = {"address": LOOPBACK, "port_value": self._ports[listener["name"]]}
            listener["address"]["socket_address"] = address
        for cluster in configuration["static_resources"]["clusters"]:
            for by_name in ("load_assignment", "dns_refresh_rate"):
                del cluster[by_name]
            cluster["type"] = "EDS"
            source = {
                "path": str(self._endpoints_file(cluster["name"])),
                "watched_directory": {"path": str(self._folder / "endpoints")},
            }
            cluster["eds_cluster_config"] = {"eds_config": {"path_config_source": source, "resource_api_version": "V3"}}
        return configuration

    def _endpoints_file(self, cluster: str) -> Path:
        return self._folder / "endpoints" / f"{cluster}.json"


def _as_envoy(endpoint: Endpoint) -> dict[str, object]:
    return {
        "endpoint": {
            "address": {"socket_address": {"address": LOOPBACK, "port_value": endpoint.port}},
            "health_check_config": {"port_value": endpoint.health_port},
        }
    }
