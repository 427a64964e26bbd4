"""Finds the incompatible changes between two versions of an OpenAPI or AsyncAPI document, or of an event's schema."""

from collections.abc import Iterator
from typing import Any

from waybill_dev.checks.contract_compatibility.schemas import Break, Use, Versions, resolved

Document = dict[str, Any]


def event_breaks(old: Document, new: Document) -> Iterator[Break]:
    yield from Versions(old, new, Use.READ | Use.WRITTEN).breaks(old, new)


def openapi_breaks(old: Document, new: Document) -> Iterator[Break]:
    for path, methods in old["paths"].items():
        for method, operation in methods.items():
            where = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield Break(where, "is gone")
            else:
                yield from _operation(old, new, operation, now, where)


def _operation(old: Document, new: Document, before: Document, after: Document, where: str) -> Iterator[Break]:
    request, answer = Versions(old, new, Use.WRITTEN), Versions(old, new, Use.READ)
    if after.get("security") and not before.get("security"):
        yield Break(where, "now requires a token")
    parameters = {_key(one, old): resolved(one, old) for one in before.get("parameters", ())}
    parameters_now = {_key(one, new): resolved(one, new) for one in after.get("parameters", ())}
    for key, parameter in parameters.items():
        path = f"{where}: {key[0]} parameter {key[1]}"
        if key not in parameters_now:
            yield Break(path, "is gone")
            continue
        if parameters_now[key].get("required") and not parameter.get("required"):
            yield Break(path, "is now required")
        yield from request.breaks(parameter.get("schema", {}), parameters_now[key].get("schema", {}), path)
    for key in parameters_now.keys() - parameters.keys():
        if parameters_now[key].get("required"):
            yield Break(f"{where}: {key[0]} parameter {key[1]}", "is new and required")
    body, body_now = resolved(before.get("requestBody", {}), old), resolved(after.get("requestBody", {}), new)
    if body_now.get("required") and not body.get("required"):
        yield Break(f"{where}: request body", "is now required")
    yield from _content(request, body, body_now, f"{where}: request body")
    for status, response in before.get("responses", {}).items():
        path = f"{where}: {status}"
        if status not in after.get("responses", {}):
            yield Break(path, "is no longer answered")
            continue
        response_then, response_now = resolved(response, old), resolved(after["responses"][status], new)
        yield from (
            Break(f"{path}: header {name}", "is gone")
            for name in response_then.get("headers", {}).keys() - response_now.get("headers", {}).keys()
        )
        yield from _content(answer, response_then, response_now, path)


def _key(parameter: Document, document: Document) -> tuple[str, str]:
    plain = resolved(parameter, document)
    return plain["in"], plain["name"]


def _content(versions: Versions, before: Document, after: Document, where: str) -> Iterator[Break]:
    for media, content in before.get("content", {}).items():
        if media not in after.get("content", {}):
            yield Break(f"{where}: {media}", "is gone")
            continue
        schema, schema_now = content.get("schema", {}), after["content"][media].get("schema", {})
        for found in versions.breaks(schema, schema_now):
            yield Break(f"{where}: {found.where}" if found.where else where, found.what)


def asyncapi_breaks(old: Document, new: Document) -> Iterator[Break]:
    """Compares channels, bindings, operations and headers. The data of each event has a schema of its own."""
    for name, channel in old["channels"].items():
        now = new["channels"].get(name)
        if now is None:
            yield Break(f"channel {name}", "is gone")
        elif (channel["address"], channel.get("bindings")) != (now["address"], now.get("bindings")):
            yield Break(f"channel {name}", "has another address, exchange or binding")
    for name, operation in old["operations"].items():
        if operation["action"] == "send" and name not in new["operations"]:
            yield Break(f"operation {name}", "is gone")
    for name, message in old["components"]["messages"].items():
        now = new["components"]["messages"].get(name)
        if now is not None:
            versions = Versions(old, new, Use.READ)
            yield from versions.breaks(_headers(message, old), _headers(now, new), f"headers of {name}")
            if message["contentType"] != now["contentType"]:
                yield Break(f"message {name}", f"was {message['contentType']}, now is {now['contentType']}")


def _headers(message: Document, document: Document) -> Document:
    for trait in message.get("traits", ()):
        message = {**resolved(trait, document), **message}
    headers: Document = resolved(message.get("headers", {}), document)
    return headers
