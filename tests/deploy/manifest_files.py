"""The manifests as data, straight from their files: what a kustomization lists, below its folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[2]
K8S = CHECKOUT / "deploy" / "k8s"


def documents(folder: str) -> Iterator[dict[str, Any]]:
    for file in sorted((K8S / folder).rglob("*.yaml")):
        yield from (document for document in yaml.safe_load_all(file.read_text()) if document)


def of_kind(folder: str, kind: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {found["metadata"]["name"]: found for found in documents(folder) if found["kind"] == kind}


def literals(service: str, overlay: str | None = None) -> dict[str, str]:
    """The settings that a service's containers have."""
    folders = [f"base/{service}", *([f"overlays/{overlay}"] if overlay else [])]
    found: dict[str, str] = {}
    for folder in folders:
        kustomization = yaml.safe_load((K8S / folder / "kustomization.yaml").read_text())
        for generator in kustomization["configMapGenerator"]:
            if generator["name"] == f"{service}-settings":
                found |= dict(literal.split("=", 1) for literal in generator["literals"])
    return found
