"""Prints what is malformed in the files that deploy the system.

    python -m waybill_dev.checks.manifests CHECKOUT

Where `kubectl` is installed, each kustomization is built, and the result is validated against Kubernetes' schemas.
Without it, the single files are validated, as the examples always are. Where `docker` is installed, compose reads its
file.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

KUBERNETES = "1.34"


def complaints(checkout: Path) -> Iterator[str]:
    deploy = checkout / "deploy"
    yield from _kubernetes(deploy / "k8s")
    yield from _compose(deploy / "compose.yml")
    for file in sorted((deploy / "observability").rglob("*")):
        if file.suffix in {".yml", ".yaml", ".json"}:
            yield from _unreadable(file)


def _kubernetes(folder: Path) -> Iterator[str]:
    kubectl = shutil.which("kubectl")
    kustomizations = sorted([*folder.glob("base/*"), *folder.glob("overlays/*")])
    plain = [folder / "examples", *(kustomizations if kubectl is None else [])]
    for file in (file for part in plain for file in sorted(part.glob("*.yaml"))):
        yield from _invalid(file.relative_to(folder), yaml.safe_load_all(file.read_text()))
    if kubectl is None:
        return
    for kustomization in kustomizations:
        built = subprocess.run([kubectl, "kustomize", kustomization], capture_output=True, text=True, check=False)
        if built.returncode != 0 or built.stderr:
            yield f"{kustomization.relative_to(folder)}: {built.stderr.strip()}"
        else:
            yield from _invalid(kustomization.relative_to(folder), yaml.safe_load_all(built.stdout))


def _invalid(where: Path, documents: Iterable[dict[str, Any] | None]) -> Iterator[str]:
    for document in documents:
        if not document or document.get("kind", "Kustomization") == "Kustomization":
            continue  # the kind is optional in a kustomization
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            field = ".".join(map(str, error.path))
            yield f"{where}: {document['kind']} {document['metadata']['name']}: {field}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            continue  # a custom resource: its schema comes with its operator


def _compose(file: Path) -> Iterator[str]:
    docker = shutil.which("docker")
    # A docker may be without compose.
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        yield from _unreadable(file)
        return
    for profiles in ("", "observability"):
        read = subprocess.run(
            [docker, "compose", "-f", file, "config", "--quiet"],
            env={**os.environ, "COMPOSE_PROFILES": profiles},
            capture_output=True,
            text=True,
            check=False,
        )
        if read.returncode != 0:
            yield f"{file.name}: {read.stderr.strip()}"


def _unreadable(file: Path) -> Iterator[str]:
    try:
        json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text())
    except (ValueError, yaml.YAMLError) as error:
        yield f"{file.name}: {error}"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the library logs the version of each schema
    found = list(complaints(Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
