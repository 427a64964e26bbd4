"""The template of a service has the manifests that the services have today."""

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.services import template

CHECKOUT = find_state().checkout
RENDERED = template.files(CHECKOUT / "tools/template", "orders")


@pytest.mark.parametrize(
    "path",
    [
        "deploy/k8s/base/orders/api.yaml",
        "deploy/k8s/base/orders/migrate.yaml",
        "deploy/k8s/base/orders/relay.yaml",
        "deploy/k8s/base/orders/service-account.yaml",
        "deploy/k8s/components/databases/orders.yaml",
        "deploy/k8s/components/network-policies/orders.yaml",
    ],
)
def test_a_new_services_manifests_are_those_of_orders(path: str) -> None:
    assert RENDERED[path] == (CHECKOUT / path).read_text()
