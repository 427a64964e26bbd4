"""`docs/settings.md`: every setting of every service, written from the settings' models."""

import ast
import importlib
import inspect
import itertools
import json
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, NoDecode

from waybill_dev.services.programs import ROLES

HEAD = """\
# Settings

Generated from the services' models by `./dev contracts`. `./dev check` fails when this page is out of date.

A setting is an environment variable, or a file with the variable's name in lower case in the folder that
`WAYBILL_SECRETS_DIR` names (default `/run/secrets`). Where both exist, the variable wins. Give a **secret** as a file:
`docker inspect` shows environments, and child processes inherit them.

Settings are read once, when a process starts. A process does not start when a required setting is missing or a value
is wrong, and its error names the setting.

A *JSON list* looks like `["a", "b"]`, a *comma list* like `a,b`. `./dev up` sets what the local stack needs and passes
other `WAYBILL_*` variables on to the services. OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and
others) are described in [operations](operations.md#traces).
"""
NUMBER = ".10g"  # 1000000 and 0.5, not 1e+06 and 0.500000
SECRET = "**secret**"  # noqa: S105 - a cell of the table
TABLE = "| setting | values | default | meaning |\n| --- | --- | --- | --- |\n"


def page() -> str:
    """Raises ValueError that names the settings without a docstring."""
    shared = importlib.import_module("common.settings").ServiceSettings
    sections = [_section("Every service", shared, shared.model_fields)]
    for service in ROLES:
        kind = importlib.import_module(f"{service}.settings").Settings
        own = {
            name: field for name, field in kind.model_fields.items() if _differs(field, shared.model_fields.get(name))
        }
        sections.append(_section(service, kind, own))
    return "\n".join([HEAD, *sections])


def _differs(field: Any, common: Any) -> bool:
    return common is None or field.default != common.default


def _section(title: str, kind: Any, fields: dict[str, Any]) -> str:
    schema, meanings = kind.model_json_schema(), _docstrings(kind)
    if undocumented := fields.keys() - meanings.keys():
        raise ValueError(f"{kind.__module__}: add a docstring to {', '.join(sorted(undocumented))}")
    rows = (_row(kind, name, field, schema, meanings[name]) for name, field in fields.items())
    return f"## {title}\n\n{TABLE}" + "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _docstrings(kind: Any) -> dict[str, str]:
    """The text below each field. Read here, as pydantic's `use_attribute_docstrings` costs each process 17 ms."""
    bases = kind.__mro__[: kind.__mro__.index(BaseSettings)]
    classes = [ast.parse(inspect.getsource(base)).body[0] for base in reversed(bases)]
    return {
        field.target.id: inspect.cleandoc(text)
        for body in (one.body for one in classes if isinstance(one, ast.ClassDef))
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(text := below.value.value, str)
    }


def _row(kind: Any, name: str, field: Any, schema: dict[str, Any], meaning: str) -> tuple[str, str, str, str]:
    variable = f"{kind.model_config['env_prefix']}{name.upper()}"
    values = _values(schema["properties"][name], schema)
    if any(mark is NoDecode for mark in field.metadata):
        values = values.replace("JSON list", "comma list")
    if values == SECRET:
        values += f": file `{variable.lower()}`"
    return f"`{variable}`", values, _default(field), " ".join(meaning.split()).replace("|", "\\|")


def _values(schema: dict[str, Any], document: dict[str, Any]) -> str:
    if "$ref" in schema:
        fields = document["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
        return f"objects with {', '.join(f'`{field}`' for field in fields)}"
    if "anyOf" in schema:
        return " or ".join(_values(one, document) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"JSON list: {_values(items, document)}" if items and "prefixItems" not in items else "JSON list"
    if schema.get("format") == "password":
        return SECRET
    words = {"string": "text", "boolean": "`true`, `false`"}.get(schema["type"], schema["type"])
    return " ".join([words, *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        above = f"above {schema['exclusiveMinimum']:{NUMBER}}"
        yield above + (f", at most {high:{NUMBER}}" if high is not None else "")
    elif low is not None:
        yield f"from {low:{NUMBER}}" + (f" to {high:{NUMBER}}" if high is not None else "")


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default in ([], (), frozenset()):
        return "none"
    if isinstance(field.default, tuple):
        if isinstance(field.default[0], str):
            return f"`{json.dumps(field.default)}`"
        return f"`{','.join(f'{part:g}' for part in field.default)}`"
    return f"`{field.default if isinstance(field.default, str) else json.dumps(field.default)}`"
