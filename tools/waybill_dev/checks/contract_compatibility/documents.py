"""Two versions of a service's OpenAPI or AsyncAPI document, or of one event's schema: what broke."""

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
    sent, answered = Versions(old, new, Use.WRITTEN), Versions(old, new, Use.READ)
    if after.get("security") and not before.get("security"):
        yield Break(where, "now wants a token")
    known = {_key(one, old): resolved(one, old) for one in before.get("parameters", ())}
    known_now = {_key(one, new): resolved(one, new) for one in after.get("parameters", ())}
    for key, parameter in known.items():
        place = f"{where}: {key[0]} parameter {key[1]}"
        if key not in known_now:
            yield Break(place, "is gone")
            continue
        if known_now[key].get("required") and not parameter.get("required"):
            yield Break(place, "is now required")
        yield from sent.breaks(parameter.get("schema", {}), known_now[key].get("schema", {}), place)
    for key in known_now.keys() - known.keys():
        if known_now[key].get("required"):
            yield Break(f"{where}: {key[0]} parameter {key[1]}", "is new and required")
    body, body_now = resolved(before.get("requestBody", {}), old), resolved(after.get("requestBody", {}), new)
    if body_now.get("required") and not body.get("required"):
        yield Break(f"{where}: request body", "is now required")
    yield from _content(sent, body, body_now, f"{where}: request body")
    for status, response in before.get("responses", {}).items():
        place = f"{where}: {status}"
        if status not in after.get("responses", {}):
            yield Break(place, "is no longer answered")
            continue
        answer, answer_now = resolved(response, old), resolved(after["responses"][status], new)
        yield from (
            Break(f"{place}: header {name}", "is gone")
            for name in answer.get("headers", {}).keys() - answer_now.get("headers", {}).keys()
        )
        yield from _content(answered, answer, answer_now, place)


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
    """Channels, what is bound to them, operations and headers; the data is each event's own schema."""
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
