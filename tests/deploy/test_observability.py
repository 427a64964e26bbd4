"""Rules and dashboards query only exported metrics, and alerts link to a section of the runbook."""

import json
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

CHECKOUT = Path(__file__).parents[2]
OBSERVABILITY = CHECKOUT / "deploy" / "observability"
OPERATIONS = CHECKOUT / "docs" / "operations.md"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((OBSERVABILITY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in OBSERVABILITY.glob("grafana/dashboards/*.json")}
# The modules of the roles that define metrics.
MEASURING = (
    "common.observability.http_metrics",
    "common.messaging.relay",
    "common.messaging.consumer",
    "common.feed.streams",
    "common.security.jwks",
    "common.security.revocation",
    "auth.oauth.grants",
    "notifier.deliver",
)
OURS = re.compile(r"\b(?:waybill|http|process|rabbitmq|cnpg|kubelet)_\w+")
BY_SERVERS = {
    # RabbitMQ's plugin `rabbitmq_prometheus`; the running stack's are compared in tests/e2e/test_metrics.py.
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_unacked",
    "rabbitmq_detailed_queue_consumers",
    # CloudNativePG's exporter: the queries in its default-monitoring.yaml, named cnpg_QUERY_COLUMN.
    "cnpg_backends_total",
    "cnpg_backends_max_tx_duration_seconds",
    "cnpg_pg_settings_setting",
    "cnpg_pg_replication_lag",
    "cnpg_pg_replication_streaming_replicas",
    # Its collector (https://cloudnative-pg.io/docs/current/monitoring).
    "cnpg_collector_pg_wal",
    # The kubelet (https://kubernetes.io/docs/reference/instrumentation/metrics).
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture(scope="module")
def exported() -> set[str]:
    for module in MEASURING:
        import_module(module)
    ours = {metric.name + suffix for metric in REGISTRY.collect() for suffix in SUFFIXES.get(metric.type, ())}
    return ours | BY_SERVERS


def names(expression: str) -> set[str]:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for name in recorded:
        expression = expression.replace(name, "")
    return set(OURS.findall(expression))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_that_are_exported(rule: dict[str, Any], exported: set[str]) -> None:
    found = names(rule["expr"])
    assert found or "up{" in rule["expr"] or rule["expr"].startswith("service:")
    assert found <= exported


def test_every_metric_of_a_server_is_asked_for() -> None:
    assert set().union(*(names(rule["expr"]) for rule in RULES)) >= BY_SERVERS


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_is_shown_to_fire(rule: dict[str, Any]) -> None:
    tests = yaml.safe_load((OBSERVABILITY / "prometheus" / "rules_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert rule["alert"] in fired


@pytest.mark.parametrize("board", DASHBOARDS)
def test_a_dashboard_asks_for_metrics_that_are_exported(board: str, exported: set[str]) -> None:
    expressions = [target["expr"] for panel in DASHBOARDS[board]["panels"] for target in panel["targets"]]
    assert len(expressions) >= 8
    assert set().union(*map(names, expressions)) <= exported


def test_every_metric_of_ours_is_on_a_dashboard(exported: set[str]) -> None:
    shown = " ".join(str(board["panels"]) for board in DASHBOARDS.values())
    bases = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in exported if name.startswith("waybill_")}
    assert not {base for base in bases if base not in shown}


def test_probes_are_no_requests() -> None:
    expressions = [rule["expr"] for rule in RULES]
    expressions += [t["expr"] for board in DASHBOARDS.values() for panel in board["panels"] for t in panel["targets"]]
    for asked in re.findall(r"http_server_request_duration_seconds_\w+(\{[^}]*)?", " ".join(expressions)):
        assert 'route!~"/health.*|/metrics"' in asked


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
    ids=["checked", "tested", "scraped by compose"],
)
def test_promtool_accepts_the_rules(words: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(  # noqa: S603 - a program of the machine's own
        [promtool, *words], cwd=OBSERVABILITY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_scrapes_what_compose_scrapes_and_the_servers_of_the_cluster() -> None:
    read = [
        {
            job["job_name"]: job
            for job in yaml.safe_load((OBSERVABILITY / "prometheus" / name).read_text())["scrape_configs"]
        }
        for name in ("prometheus.yml", "kubernetes.yml")
    ]
    compose, kubernetes = read
    assert kubernetes.keys() == compose.keys() | {"postgres", "kubelet"}
    for name in compose:
        assert kubernetes[name].get("params") == compose[name].get("params")
        assert kubernetes[name].get("metrics_path", "/metrics") == compose[name].get("metrics_path", "/metrics")
    jobs = set(re.findall(r'job="(\w+)"', " ".join(rule["expr"] for rule in RULES)))
    assert jobs <= kubernetes.keys()


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_section_of_the_runbook(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/operations.md"
    titles = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert section in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert rule["labels"]["severity"] in {"page", "ticket"}
