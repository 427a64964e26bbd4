"""What the services' own code says, by the service's name."""

from importlib import import_module

from common.settings import ServiceSettings


def settings_of(service: str) -> type[ServiceSettings]:
    module = import_module(f"{service}.settings")
    found: type[ServiceSettings] = next(
        value for value in vars(module).values() if getattr(value, "service", None) == service
    )
    return found
