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
    "common.security.jwks",
    "common.security.revocation",
    "auth.oauth.grants",
    "notifier.deliver",
)
OURS = re.compile(r"\b(?:waybill|http|process)_\w+")
PROMETHEUS_OWN = {"up"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture(scope="module")
def exported() -> set[str]:
    for module in MEASURING:
        import_module(module)
    return {metric.name + suffix for metric in REGISTRY.collect() for suffix in SUFFIXES.get(metric.type, ())}


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
    "words", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")], ids=["checked", "tested"]
)
def test_promtool_accepts_the_rules(words: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(  # noqa: S603 - a program of the machine's own
        [promtool, *words], cwd=OBSERVABILITY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_a_section_of_the_runbook(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    assert page == "docs/operations.md"
    titles = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert section in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert rule["labels"]["severity"] in {"page", "ticket"}
