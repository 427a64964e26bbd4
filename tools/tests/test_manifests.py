from pathlib import Path

from waybill_dev.checks.manifests import complaints

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\nspec: {ports: [{port: 8000}]%s}\n"


def checkout(folder: Path, *, service: str, example: str = SERVICE % "", dashboard: str = "{}") -> Path:
    files = {
        "k8s/base/orders/kustomization.yaml": "resources: [service.yaml]\n",
        "k8s/base/orders/service.yaml": service,
        "k8s/examples/service.yaml": example,
        "observability/dashboard.json": dashboard,
        "compose.yml": "services: {a: {image: b}}\n",
    }
    for name, text in files.items():
        file = folder / "deploy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_valid_manifests_pass(tmp_path: Path) -> None:
    assert list(complaints(checkout(tmp_path, service=SERVICE % ""))) == []


def test_a_field_that_kubernetes_does_not_know_is_reported(tmp_path: Path) -> None:
    (complaint,) = complaints(checkout(tmp_path, service=SERVICE % ", selctor: {}"))
    assert "selctor" in complaint


def test_examples_are_validated_too(tmp_path: Path) -> None:
    (complaint,) = complaints(checkout(tmp_path, service=SERVICE % "", example=SERVICE % ", selctor: {}"))
    assert complaint.startswith("examples/service.yaml: ")


def test_a_dashboard_that_is_not_json_is_reported(tmp_path: Path) -> None:
    (complaint,) = complaints(checkout(tmp_path, service=SERVICE % "", dashboard="{"))
    assert "dashboard.json" in complaint
