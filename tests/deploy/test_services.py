"""`services.toml` and everything that has to follow it: what a service lacks is named."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from auth.settings import Settings as AuthSettings
from waybill_dev.base.declaration import FILE, SERVICES, declared
from waybill_dev.checks.services import complaints, files_of
from waybill_dev.errors import LocalError
from waybill_dev.services import registration, template

from .compose_file import CHECKOUT, environment
from .manifest_files import literals

TEMPLATE = CHECKOUT / "tools" / "template"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that a service is listed or has files in."""
    listed = {entry.file for entry in (*registration.LISTINGS, *registration.BLOCKS)}
    for file in (*listed, *(file for service in SERVICES.values() for file in files_of(service))):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / file, tmp_path / file)
    return tmp_path


def test_no_service_lacks_anything() -> None:
    assert list(complaints(CHECKOUT, SERVICES)) == []


@pytest.mark.parametrize("file", [*files_of(SERVICES["orders"])])
def test_a_file_that_a_service_lacks_is_named(checkout: Path, file: str) -> None:
    (checkout / file).unlink()
    assert f"orders lacks the file {file}" in list(complaints(checkout, SERVICES))


@pytest.mark.parametrize(
    ("listing", "item"),
    [
        (listing, listing.item(SERVICES["orders"]))
        for listing in registration.LISTINGS
        if listing.includes(SERVICES["orders"])
    ],
    ids=lambda value: value.file if isinstance(value, registration.Listing) else "",
)
def test_a_list_that_lacks_a_service_is_named(checkout: Path, listing: registration.Listing, item: str) -> None:
    file = checkout / listing.file
    file.write_text(file.read_text().replace(item, "", 1).replace("waybill-orders", "", 1))
    found = [sentence for sentence in registration.missing(checkout, SERVICES) if listing.file in sentence]
    assert found
    assert any("orders" in sentence for sentence in found)


def test_the_one_process_that_prometheus_does_not_scrape_is_named(checkout: Path) -> None:
    file = checkout / "deploy" / "observability" / "prometheus" / "prometheus.yml"
    file.write_text(file.read_text().replace(", orders-relay", ""))
    (sentence,) = registration.missing(checkout, SERVICES)
    assert "prometheus.yml: orders lacks orders-relay in the list auth-api, " in sentence


def test_a_list_that_still_has_a_deleted_service_is_named(checkout: Path) -> None:
    left = {name: service for name, service in SERVICES.items() if name != "orders"}
    found = "\n".join(registration.missing(checkout, left))
    assert f"pyproject.toml must list {', '.join(left)} and no other service" in found
    assert {listing.file for listing in registration.LISTINGS} == {line.split()[0] for line in found.splitlines()}


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("deploy/compose.yml", "  orders-relay:", "orders lacks the container orders-relay"),
        ("deploy/gateway/envoy.yaml", "  - name: users-internal\n    type", "users lacks the cluster users-internal"),
        ("deploy/k8s/overlays/local/kustomization.yaml", "orders-settings", "orders-settings in configMapGenerator"),
    ],
)
def test_a_block_that_a_service_lacks_is_named(checkout: Path, file: str, text: str, complaint: str) -> None:
    path = checkout / file
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, text.replace("orders", "other").replace("users-internal", "other")))
    assert any(complaint in sentence for sentence in complaints(checkout, SERVICES))


def test_a_service_that_is_not_declared_is_named(checkout: Path) -> None:
    (checkout / "services" / "newcomer").mkdir()
    (checkout / "services" / "newcomer" / "pyproject.toml").touch()
    assert "services.toml does not declare services/newcomer" in list(complaints(checkout, SERVICES))


def test_a_rendered_service_lacks_nothing_but_its_lock_and_contracts(checkout: Path) -> None:
    blocks = template.blocks(TEMPLATE, "newcomer")
    after = declared(FILE.read_text() + blocks["services.toml"])
    texts = registration.registered(checkout, SERVICES, after["newcomer"], blocks)
    for file, text in (template.files(TEMPLATE, "newcomer") | texts).items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(text)
        assert "samples" not in text.lower()
    assert list(complaints(checkout, after)) == [
        "newcomer lacks the file services/newcomer/requirements.lock",
        "newcomer lacks the file contracts/newcomer/openapi.json",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("orders", "there is a service orders already"),
        ("Pay-ments", "2 to 20 letters"),
        ("class", "has a meaning already"),
        ("json", "has a meaning already"),
        ("httpx", "has a meaning already"),
        ("gateway", "has a meaning already"),
        ("products", "/products is a path of orders"),
    ],
)
def test_a_name_that_cannot_name_a_service_is_refused(name: str, reason: str) -> None:
    with pytest.raises(LocalError, match=reason):
        template.check_name(name, SERVICES)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('summary = "x"', "missing 1 required positional argument: 'roles'"),
        ('summary = "x"\nroles = []\npath = ["/x"]', "unexpected keyword argument 'path'"),
        ('summary = "x"\nroles = []\nreads = ["stock.item.created.v1"]', "names stock, which is not declared"),
        ('summary = "x"\nroles = []\nreads = ["#"]', "names #, which is not declared"),
    ],
)
def test_a_wrong_declaration_is_refused_by_the_services_name(table: str, reason: str) -> None:
    with pytest.raises(LocalError, match=rf"services.toml: newcomer.*{reason}"):
        declared(f"{FILE.read_text()}\n[newcomer]\n{table}\n")


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_tokens_are_for_every_service(overlay: str) -> None:
    for settings in (environment("auth-api"), literals("auth", overlay)):
        assert json.loads(settings["WAYBILL_RESOURCE_SERVERS"]) == list(SERVICES)
    assert set(AuthSettings.model_fields["resource_servers"].default) <= set(SERVICES)


def test_prometheus_finds_every_process() -> None:
    text = (CHECKOUT / "deploy" / "observability" / "prometheus" / "prometheus.yml").read_text()
    (names,) = (found["names"] for found in yaml.safe_load(text)["scrape_configs"][0]["dns_sd_configs"])
    assert names == [f"{service.name}-{role}" for service in SERVICES.values() for role in service.roles]
