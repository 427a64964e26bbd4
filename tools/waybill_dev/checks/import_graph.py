"""The shape of each package: its folders, the imports between them, and how long its files are."""

import statistics
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grimp

from waybill_dev.checks.service_layers import find_slots, upward_imports

Arrows = set[tuple[str, str]]


@dataclass(frozen=True)
class Shape:
    """`folders` counts the modules at the top of the package too: each is a name to know.

    An arrow is any number of imports from one folder to another. It goes up where the layers of pyproject.toml say so.
    """

    package: str
    folders: int
    arrows: int
    upward: int
    in_cycles: int
    files: int
    median: float
    longest: tuple[str, int]
    """The file and its lines."""
    lines: int


def shapes(checkout: Path) -> Iterator[Shape]:
    options = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = dict(_layers(options["contracts"]))
    graph = grimp.build_graph(*options["root_packages"], cache_dir=None)
    for package in options["root_packages"]:
        yield _shape(graph, package, layers[package])


def _layers(contracts: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Each package with its layers, as patterns of `service_layers`."""
    for contract in contracts:
        if contract["type"] == "layers":
            deep = [" ".join(f"{name} {name}.*" for name in layer.split(" | ")) for layer in contract["layers"]]
            yield from ((package, deep) for package in contract["containers"])
        elif contract["type"] == "service_layers":
            yield from ((service, contract["layers"]) for service in contract["services"])


def _shape(graph: grimp.ImportGraph, package: str, layers: list[str]) -> Shape:
    modules = {module for module in graph.modules if module.startswith(f"{package}.")}
    folder_of = {module: ".".join(module.split(".")[:2]) for module in modules}
    imports = [(one, other) for one in modules for other in graph.find_modules_directly_imported_by(one) & modules]
    arrows = {(folder_of[one], folder_of[other]) for one, other in imports if folder_of[one] != folder_of[other]}
    slots = {module: slot for module in modules for slot in find_slots(layers, module.removeprefix(f"{package}."))[:1]}
    lengths = dict(_lengths(package))
    return Shape(
        package,
        len(set(folder_of.values())),
        len(arrows),
        len(list(upward_imports(graph, slots))),
        len(_cyclic(arrows)),
        len(lengths),
        statistics.median(lengths.values()),
        max(lengths.items(), key=lambda file: file[1]),
        sum(lengths.values()),
    )


def _cyclic(arrows: Arrows) -> set[str]:
    """The folders from which the arrows lead back to where they began."""
    reachable = set(arrows)
    while longer := {(one, end) for one, middle in reachable for start, end in arrows if start == middle} - reachable:
        reachable |= longer
    return {one for one, other in reachable if one == other}


def _lengths(package: str) -> Iterator[tuple[str, int]]:
    """The lines of each file that has any, by its path in the package."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # noqa: S101, PT018 - our own packages are on the path
    folder = Path(spec.origin).parent
    for file in folder.rglob("*.py"):
        if lines := len(file.read_text().splitlines()):
            yield str(file.relative_to(folder)), lines
