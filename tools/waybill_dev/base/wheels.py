"""Servers that come as Python wheels: found without importing the packages, which would run code of their own."""

import importlib.util
from pathlib import Path

from waybill_dev.errors import LocalError


def package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise LocalError(f"the package {package} is not installed; ./dev installs it from requirements.lock")
    return Path(found.origin).parent
