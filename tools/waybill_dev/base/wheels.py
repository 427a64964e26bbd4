"""Locates servers that come as Python wheels, without importing the packages: their imports have side effects."""

import importlib.util
from pathlib import Path

from waybill_dev.errors import LocalError


def package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise LocalError(f"the package {package} is not installed; ./dev installs it from requirements.lock")
    return Path(found.origin).parent
