"""Where services are listed outside their own files: `./dev new` adds one, `./dev check` names where one is missing.

A list has all services in the order of `services.toml`, each by the same text. What differs from service to service
is a block above a mark, from `tools/template/blocks`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from waybill_dev.base.declaration import Service
from waybill_dev.errors import LocalError

Item = Callable[[Service], str]
DOCS_ROUTES = (
    "{match: {path_separated_prefix: /docs/%s}, route: {cluster: %s, timeout: 14s, prefix_rewrite: /docs}}",
    "{match: {path: /redoc/%s}, route: {cluster: %s, timeout: 14s, prefix_rewrite: /redoc}}",
    "{match: {path: /openapi/%s.json}, route: {cluster: %s, timeout: 14s, prefix_rewrite: /openapi.json}}",
)


@dataclass(frozen=True)
class Listing:
    """All services in one text; `times` is how often a file has that text."""

    file: str
    item: Item
    separator: str = "\n"
    times: int = 1
    includes: Callable[[Service], bool] = lambda _: True

    def text(self, services: Iterable[Service]) -> str:
        return self.separator.join(self.item(service) for service in services if self.includes(service))


@dataclass(frozen=True)
class Block:
    """`template` goes above the line that ends with `mark`."""

    file: str
    mark: str
    template: str


def _named(pattern: str) -> Item:
    return lambda service: pattern.replace("NAME", service.name)


def _routes(service: Service) -> str:
    matches = [f"path: {path}" for path in service.exact_paths]
    matches += [f"path_separated_prefix: {path}" for path in service.paths]
    route = f"route: {{cluster: {service.name}, timeout: 14s}}"
    return "\n".join(f"{' ' * 14}- {{match: {{{match}}}, {route}}}" for match in matches)


def _docs_routes(service: Service) -> str:
    return "\n".join(f"{' ' * 14}- {route % (service.name, service.name)}" for route in DOCS_ROUTES)


def _docs_row(service: Service) -> str:
    return (
        f"  <tr><td><b>{service.name}</b><br>{service.summary}"
        f'<td><a href="/docs/{service.name}">Swagger UI</a><td><a href="/redoc/{service.name}">ReDoc</a>'
        f'<td><a href="/openapi/{service.name}.json">OpenAPI</a>'
    )


def _containers(service: Service) -> str:
    return ", ".join(f"{service.name}-{role}" for role in service.roles)


def _calls_auth(service: Service) -> bool:
    return "auth" in service.calls


def _is_not_auth(service: Service) -> bool:
    return service.name != "auth"


K8S = "deploy/k8s"
COMPONENTS = f"{K8S}/components"
POOLER = """\
apiVersion: postgresql.cnpg.io/v1
kind: Pooler
metadata: {name: NAME-db-pooler, labels: {app.kubernetes.io/name: NAME}}
spec: {cluster: {name: NAME-db}}
"""
ADD_SETTINGS = "# ./dev new adds settings above"
LISTINGS = (
    Listing("pyproject.toml", _named('  "waybill-NAME",')),
    Listing("pyproject.toml", _named('waybill-NAME = { path = "services/NAME", editable = true }')),
    Listing("pyproject.toml", _named('"services/NAME/src"'), ", "),
    Listing("pyproject.toml", _named("services/NAME/src"), ":"),
    Listing("pyproject.toml", _named('"NAME"'), ", ", times=7),
    Listing("deploy/compose.yml", _named("    - NAME-secrets:/secrets/NAME")),
    Listing("deploy/compose.yml", _named("NAME"), ", ", times=5),
    Listing("deploy/compose.yml", _named('"NAME"'), ", "),
    Listing("deploy/compose.yml", _named("  NAME: {internal: true}")),
    Listing("deploy/compose.yml", _named("  NAME-secrets: {}")),
    Listing("deploy/gateway/envoy.yaml", _routes, "\n\n"),
    Listing("deploy/gateway/envoy.yaml", _docs_routes),
    Listing("deploy/gateway/docs.html", _docs_row),
    Listing("deploy/observability/prometheus/prometheus.yml", _containers, ", "),
    Listing(f"{K8S}/base/auth/kustomization.yaml", _named('"NAME"'), ", "),
    Listing(f"{K8S}/overlays/local/kustomization.yaml", _named("- ../../base/NAME")),
    Listing(f"{K8S}/overlays/production/kustomization.yaml", _named("- ../../base/NAME")),
    Listing(f"{COMPONENTS}/broker/kustomization.yaml", _named("- users/NAME.yaml")),
    Listing(f"{COMPONENTS}/broker/kustomization.yaml", _named("- topology/NAME.yaml")),
    Listing(f"{COMPONENTS}/databases/kustomization.yaml", _named("- NAME.yaml")),
    Listing(
        f"{COMPONENTS}/pooler/kustomization.yaml",
        _named("- {name: NAME-settings, behavior: merge, literals: [WAYBILL_DATABASE_POOLER=NAME-db-pooler:5432]}"),
    ),
    Listing(f"{COMPONENTS}/pooler/poolers.yaml", _named(POOLER), "---\n"),
    Listing(f"{COMPONENTS}/network-policies/kustomization.yaml", _named("- NAME.yaml")),
    Listing(
        f"{COMPONENTS}/network-policies/auth.yaml",
        _named("{podSelector: {matchLabels: {app.kubernetes.io/name: NAME}}}"),
        ", ",
        includes=_calls_auth,
    ),
    Listing(f"{COMPONENTS}/gateway/kustomization.yaml", _named("- routes/NAME.yaml")),
    Listing(
        f"{COMPONENTS}/gateway/tokens.yaml",
        _named("  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: NAME}"),
        includes=_is_not_auth,
    ),
    Listing(
        f"{COMPONENTS}/tracing/kustomization.yaml",
        _named("- {<<: *tracing, name: NAME-settings}"),
        includes=_is_not_auth,
    ),
)
BLOCKS = (
    Block("deploy/compose.yml", "# ./dev new adds a service above", "compose.yml"),
    Block("deploy/gateway/envoy.yaml", "# ./dev new adds a cluster above", "envoy.yaml"),
    Block(f"{K8S}/overlays/local/kustomization.yaml", ADD_SETTINGS, "overlay_local.yaml"),
    Block(f"{K8S}/overlays/production/kustomization.yaml", ADD_SETTINGS, "overlay_production.yaml"),
)


def missing(checkout: Path, services: Mapping[str, Service]) -> Iterator[str]:
    """A sentence for each list that is not all services in their order, naming those that it lacks."""
    for listing in LISTINGS:
        text, whole = (checkout / listing.file).read_text(), listing.text(services.values())
        if text.count(whole) >= listing.times:
            continue
        whole = whole.strip()
        of_list = f" in the list {whole}" if "\n" not in whole else ""
        lacking = [
            f"{listing.file}: {service.name} lacks {part.strip()}{of_list}"
            for service in services.values()
            if listing.includes(service)
            for line in listing.item(service).splitlines()
            for part in line.split(listing.separator)
            if part not in text
        ]
        names = ", ".join(service.name for service in services.values() if listing.includes(service))
        places = f" at {listing.times} places" if listing.times > 1 else ""
        yield from lacking or [
            f"{listing.file} must list {names} and no other service, in this order{places}: {whole.splitlines()[0]}"
        ]


def registered(
    checkout: Path, before: Mapping[str, Service], new: Service, blocks: Mapping[str, str]
) -> dict[str, str]:
    """The files that list services, with the new one added; `blocks` are the rendered templates. Writes nothing.

    Raises LocalError where a file does not have the list or the mark that it should have.
    """
    after = {**before, new.name: new}
    texts: dict[str, str] = {}
    for listing in LISTINGS:
        text = texts.get(listing.file) or (checkout / listing.file).read_text()
        old = listing.text(before.values())
        if text.count(old) < listing.times:
            raise LocalError(f"{listing.file} does not list all services; ./dev check names what it lacks")
        texts[listing.file] = text.replace(old, listing.text(after.values()))
    for block in BLOCKS:
        text = texts[block.file]
        at = text.find(block.mark)
        if at < 0:
            raise LocalError(f"{block.file} lacks the line {block.mark!r}")
        line = text.rfind("\n", 0, at) + 1
        texts[block.file] = text[:line] + blocks[block.template] + text[line:]
    return texts
