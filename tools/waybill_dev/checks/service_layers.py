"""A contract of import-linter: the layers of all services, in one list that must name every module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from grimp import ImportGraph
from importlinter.application import output
from importlinter.domain import fields
from importlinter.domain.contract import Contract, ContractCheck


@dataclass(frozen=True)
class Slot:
    """A module's position in the list: `layer` counts from 0 at the top, `group` numbers the groups within a layer."""

    layer: int
    group: int


class ServiceLayers(Contract):
    """A module imports from its own layer or a lower one, and each module of a service is in exactly one layer.

    Options:
    `services`: the packages to check.
    `layers`: from high to low; each holds patterns of module names within a service, separated by spaces. `|` separates
    groups that may not import each other.
    `edges`: how many of the highest layers may import `edge_libraries`, directly or through `common`.
    """

    type_name = "service_layers"

    # import-linter replaces each field with its value.
    services: Any = fields.ListField(subfield=fields.StringField())
    layers: Any = fields.ListField(subfield=fields.StringField())
    edges: Any = fields.IntegerField()
    edge_libraries: Any = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - import-linter's signature
        complaints: list[str] = []
        for service in self.services:
            modules = sorted(m for m in graph.modules if m.startswith(f"{service}.") and not graph.find_children(m))
            slots: dict[str, Slot] = {}
            for module in modules:
                found = find_slots(self.layers, module.removeprefix(f"{service}."))
                if len(found) == 1:
                    slots[module] = found[0]
                else:
                    complaints.append(f"{module} is in {len(found) or 'no'} layers, not in one: see pyproject.toml")
            complaints += upward_imports(graph, slots)
            complaints += self._edge_imports(graph, slots)
        return ContractCheck(kept=not complaints, metadata={"complaints": complaints})

    def _edge_imports(self, graph: ImportGraph, slots: dict[str, Slot]) -> Iterator[str]:
        """A sentence for each module below the edges that reaches an edge library."""
        for module, slot in slots.items():
            if slot.layer < self.edges:
                continue
            for library in self.edge_libraries:
                if library in graph.modules and (chain := graph.find_shortest_chain(module, library)):
                    yield f"{module} must not import {library}: {' -> '.join(chain)}"

    def render_broken_contract(self, check: ContractCheck) -> None:
        for complaint in check.metadata["complaints"]:
            output.print_error(complaint)


def find_slots(layers: Sequence[str], module: str) -> list[Slot]:
    """The slots whose patterns match the module's name, which excludes the service's."""
    return [
        Slot(number, group)
        for number, layer in enumerate(layers)
        for group, patterns in enumerate(layer.split("|"))
        if any(fnmatchcase(module, pattern) for pattern in patterns.split())
    ]


def upward_imports(graph: ImportGraph, slots: dict[str, Slot]) -> Iterator[str]:
    """A sentence for each import from a lower layer to a higher one, or between two groups of a layer."""
    for importer, slot in slots.items():
        for imported in graph.find_modules_directly_imported_by(importer):
            other = slots.get(imported)
            if other is None:
                continue
            if other.layer < slot.layer:
                yield f"{importer} is below {imported} and must not import it"
            elif other.layer == slot.layer and other.group != slot.group:
                yield f"{importer} and {imported} must not import each other"
