"""The manifests match compose and the local stack: same roles, ports, secrets, permissions and routes."""

import os
import re
import shutil
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from notifier.webhooks.destinations import is_public
from waybill_dev.base.declaration import SERVICES
from waybill_dev.servers.postgres import PRIVACY, SETTINGS
from waybill_dev.services.programs import ROLES, WITH_INTERNAL_PORT

from .compose_file import COMPOSE, environment
from .manifest_files import CHECKOUT, K8S, documents, literals, of_kind

OVERLAYS = ("local", "production")
ENVOY: dict[str, Any] = yaml.safe_load((CHECKOUT / "deploy" / "gateway" / "envoy.yaml").read_text())


@pytest.mark.parametrize("service", ROLES)
def test_every_role_has_a_deployment_that_runs_it(service: str) -> None:
    deployments = of_kind(f"base/{service}", "Deployment")
    assert set(deployments) == {f"{service}-{role}" for role in ROLES[service]}
    for role in ROLES[service]:
        container = deployments[f"{service}-{role}"]["spec"]["template"]["spec"]["containers"][0]
        internal = ["--internal-port", "8001"] if role == "api" and service in WITH_INTERNAL_PORT else []
        assert container["args"] == [role, "--host", "0.0.0.0", *internal]
    (migration,) = of_kind(f"base/{service}", "Job").values()
    assert migration["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("service", ROLES)
def test_a_service_has_the_settings_that_compose_gives_it(service: str, overlay: str) -> None:
    settings = literals(service, overlay)
    optional = {
        "WAYBILL_CORS_ORIGINS",
        "WAYBILL_PASSWORD_GRANT",
        "WAYBILL_WEB_REDIRECT_URIS",
        "WAYBILL_RETRY_DELAYS",
        "WAYBILL_QUEUE_PARTITIONS",
        "WAYBILL_LOG_LEVEL",
        "WAYBILL_WEBHOOK_ALLOW",
    }
    optional.add("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert environment(f"{service}-api").keys() - optional <= settings.keys()
    assert settings["WAYBILL_PUBLIC_URL"] == literals("auth", overlay)["WAYBILL_PUBLIC_URL"]


def test_a_process_that_hashes_passwords_is_promised_a_core() -> None:
    deployments = {found["metadata"]["name"]: found for found in built("base/users") if found["kind"] == "Deployment"}
    api = deployments["users-api"]
    assert api["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "1"


@pytest.mark.parametrize("service", ROLES)
def test_a_migration_is_the_same_job_until_the_next_release(service: str, tmp_path: Path) -> None:
    base = shutil.copytree(K8S, tmp_path / "k8s") / "base" / service
    kustomization = base / "kustomization.yaml"
    text = kustomization.read_text()

    def job() -> dict[str, Any]:
        (found,) = (found for found in built(base) if found["kind"] == "Job")
        return found

    before = job()
    kustomization.write_text(text + "  - WAYBILL_LOG_LEVEL=debug\n")
    assert job() == before
    kustomization.write_text(re.sub(r"newTag: .+}", "newTag: 9.0.0-rc.1}", text))
    assert job()["metadata"]["name"] == f"{service}-migrate-9.0.0-rc.1" != before["metadata"]["name"]


def test_the_gateway_trusts_the_issuer_that_auth_is() -> None:
    (policy,) = of_kind("components/gateway", "SecurityPolicy").values()
    assert policy["spec"]["jwt"]["providers"][0]["issuer"] == literals("auth", "local")["WAYBILL_PUBLIC_URL"]
    patches = (K8S / "overlays" / "production" / "kustomization.yaml").read_text()
    assert f'/issuer, value: "{literals("auth", "production")["WAYBILL_PUBLIC_URL"]}"' in patches


def test_the_databases_are_set_as_the_local_one_is() -> None:
    clusters = of_kind("components/databases", "Cluster")
    assert set(clusters) == {f"{service}-db" for service in ROLES}
    for cluster in clusters.values():
        parameters = cluster["spec"]["postgresql"]["parameters"]
        assert parameters == {name: SETTINGS[name] for name in parameters}
        assert parameters.items() >= PRIVACY.items()


KINDS = {"path": "Exact", "path_separated_prefix": "PathPrefix", "safe_regex": "RegularExpression"}


def test_paths_go_where_the_local_gateway_sends_them() -> None:
    wanted = {}
    for route in ENVOY["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"][
        "route_config"
    ]["virtual_hosts"][0]["routes"]:
        match = route["match"]
        if route.get("direct_response", {}).get("status") == 405:
            continue  # Envoy Gateway leaves methods to the services
        [kind] = match.keys() & KINDS.keys()
        path = match[kind]["regex"] if kind == "safe_regex" else match[kind]
        target = route.get("route", {})
        owner = f"{target['cluster']}-api" if target else None
        wanted[KINDS[kind], path] = (owner, target.get("prefix_rewrite"), target.get("timeout", "14s"))
    found = {}
    for route in of_kind("components/gateway/routes", "HTTPRoute").values():
        for rule in route["spec"]["rules"]:
            backend = rule.get("backendRefs", [{"name": None}])[0]["name"]
            for match in rule["matches"]:
                timeout = rule.get("timeouts", {}).get("request", "14s")
                found[match["path"]["type"], match["path"]["value"]] = (backend, _rewritten(rule), timeout)
    assert found == wanted


def test_a_clients_share_of_the_gateway_is_that_of_the_local_one() -> None:
    """Memory, connections, streams, time to send a request, and requests of a network: an IPv4 address or IPv6 /64."""
    local = ENVOY["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {found["name"]: found.get("typed_config") for found in local["http_filters"]}
    (proxy,) = of_kind("components/gateway", "EnvoyProxy").values()
    (clients,) = (found["spec"] for found in of_kind("components/gateway", "ClientTrafficPolicy").values())
    (traffic,) = (found["spec"] for found in of_kind("components/gateway", "BackendTrafficPolicy").values())
    (gateway,) = of_kind("components/gateway", "Gateway").values()
    assert gateway["spec"]["infrastructure"]["parametersRef"]["name"] == proxy["metadata"]["name"]

    (patch,) = proxy["spec"]["bootstrap"]["jsonPatches"]
    assert (patch["path"], patch["value"]) == ("/overload_manager", ENVOY["overload_manager"])
    container = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["container"]
    assert _bytes(container["resources"]["limits"]["memory"]) == _bytes(COMPOSE["services"]["gateway"]["mem_limit"])

    http2 = local["http2_protocol_options"]
    assert clients["http2"]["maxConcurrentStreams"] == http2["max_concurrent_streams"]
    assert _bytes(clients["http2"]["initialStreamWindowSize"]) == http2["initial_stream_window_size"]
    assert _bytes(clients["http2"]["initialConnectionWindowSize"]) == http2["initial_connection_window_size"]
    times = clients["timeout"]["http"]
    assert times["requestHeadersReceivedTimeout"] == local["request_headers_timeout"]
    assert times["requestReceivedTimeout"] == local["request_timeout"]
    assert times["streamIdleTimeout"] == local["stream_idle_timeout"]
    assert _bytes(traffic["requestBuffer"]["limit"]) == filters["envoy.filters.http.buffer"]["max_request_bytes"]
    (ignored,) = clients["http1"]["ignoredUpgradeTypes"]
    (offer,) = local["http_protocol_options"]["ignore_http_11_upgrade"]
    assert ignored["value"] == offer["safe_regex"]["regex"]

    buckets = filters["envoy.filters.http.local_ratelimit"]["descriptors"]
    rules = traffic["rateLimit"]["local"]["rules"]
    assert [rule["limit"]["requests"] for rule in rules] == [
        bucket["token_bucket"]["tokens_per_fill"] for bucket in buckets
    ]
    (network,) = clients["headers"]["earlyRequestHeaders"]["set"]
    assert network["value"].endswith("(64)%")
    for rule in rules:
        (selector,) = rule["clientSelectors"]
        assert selector["headers"] == [{"type": "Distinct", "name": network["name"]}]


def test_no_manifest_holds_a_secret() -> None:
    assert [found for found in documents(".") if found.get("kind") == "Secret"] == []


def test_only_those_who_call_a_service_reach_its_internal_port() -> None:
    callers = {}
    for service in WITH_INTERNAL_PORT:
        policy = of_kind("components/network-policies", "NetworkPolicy")[f"{service}-api"]
        (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": 8001}]]
        callers[service] = {source["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for source in rule["from"]}
    assert callers == {
        service: {name for name, declared in SERVICES.items() if service in declared.calls}
        for service in WITH_INTERNAL_PORT
    }


def test_webhooks_get_out_to_public_addresses_and_no_further() -> None:
    policy = of_kind("components/network-policies", "NetworkPolicy")["notifier-deliver"]
    (rule,) = policy["spec"]["egress"]
    blocks = [target["ipBlock"] for target in rule["to"]]
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "2000::/3"}
    for network in blocks[0]["except"]:
        assert not is_public(str(ip_network(network)[1]))


def test_the_pooler_component_puts_a_pooler_in_transaction_mode_before_each_database(tmp_path: Path) -> None:
    parts = {"resources": ["overlays/production"], "components": ["components/pooler"]}
    for name, folders in parts.items():
        parts[name] = [os.path.relpath(K8S / folder, tmp_path.resolve()) for folder in folders]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    documents = built(tmp_path)
    poolers = {found["metadata"]["name"]: found["spec"] for found in documents if found["kind"] == "Pooler"}
    databases = {found["metadata"]["name"]: found["spec"] for found in documents if found["kind"] == "Cluster"}
    for service in ROLES:
        spec = poolers.pop(f"{service}-db-pooler")
        assert (spec["cluster"], spec["type"]) == ({"name": f"{service}-db"}, "rw")
        pgbouncer, server = spec["pgbouncer"], databases[f"{service}-db"]["postgresql"]["parameters"]
        assert pgbouncer["poolMode"] == "transaction"
        sessions = spec["instances"] * int(pgbouncer["parameters"]["default_pool_size"])
        assert sessions < int(server["max_connections"]) / 2
        (settings,) = (
            found["data"]
            for found in documents
            if found["kind"] == "ConfigMap" and found["metadata"]["name"].startswith(f"{service}-settings")
        )
        assert settings["WAYBILL_DATABASE_POOLER"] == f"{service}-db-pooler:5432"
    assert poolers == {}


def built(kustomization: str | Path) -> list[dict[str, Any]]:
    """The manifests as `kubectl apply -k` applies them."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    text = subprocess.check_output([kubectl, "kustomize", K8S / kustomization])  # noqa: S603 - a program of the machine's own
    return list(yaml.safe_load_all(text))


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|m)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit == "Ki" else 1024**2)


def _rewritten(rule: dict[str, Any]) -> str | None:
    for change in rule.get("filters", ()):
        if change["type"] == "URLRewrite":
            path = change["urlRewrite"]["path"]
            return str(path.get("replacePrefixMatch") or path.get("replaceFullPath"))
    return None
