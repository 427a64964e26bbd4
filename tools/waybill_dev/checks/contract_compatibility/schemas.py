"""Finds the changes between two versions of a JSON Schema that break users of the old one.

A reader must understand everything that is written: whatever the new schema allows, the old one must have allowed. A
writer must still be understood: whatever the old schema allowed, the new one must allow. Events are checked in both
directions, because their history is read with the new schema too.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

Schema = dict[str, Any]


class Use(enum.Flag):
    """How others use data of a schema: they read it, or they write it."""

    READ = enum.auto()
    WRITTEN = enum.auto()


@dataclass(frozen=True)
class Break:
    """An incompatible change. `where` is the path of the field, `what` describes the change."""

    where: str
    what: str


# Each with whether a greater number is stricter.
_BOUNDS = {
    "minimum": True,
    "exclusiveMinimum": True,
    "minLength": True,
    "minItems": True,
    "minProperties": True,
    "maximum": False,
    "exclusiveMaximum": False,
    "maxLength": False,
    "maxItems": False,
    "maxProperties": False,
}
_EXACT = ("pattern", "format", "multipleOf", "uniqueItems")


@dataclass(frozen=True)
class Versions:
    """Both documents, in which references are resolved, and how their data is used."""

    old: Schema
    new: Schema
    use: Use

    def breaks(self, old: Schema, new: Schema, where: str = "", seen: frozenset[Any] = frozenset()) -> Iterator[Break]:
        pair = (old.get("$ref"), new.get("$ref"))
        if pair in seen:
            return  # a recursive schema
        if any(pair):
            seen |= {pair}
        before, after = _alternatives(old, self.old), _alternatives(new, self.new)
        if len(before) == len(after) == 1:
            yield from self._compared(before[0], after[0], where, seen)
            return
        for use in self.use:
            yield from replace(self, use=use).unmatched(before, after, where, seen)

    def unmatched(self, before: list[Schema], after: list[Schema], where: str, seen: frozenset[Any]) -> Iterator[Break]:
        """Yields how each alternative without a match in the other version differs from the most similar one there."""
        reads = self.use is Use.READ
        wanted, offered = (after, before) if reads else (before, after)
        for one in wanted:
            pairs = [(other, one) if reads else (one, other) for other in offered]
            tries = [list(self._compared(old, new, where, seen)) for old, new in pairs]
            if all(tries):
                similar = [found for found, other in zip(tries, offered, strict=True) if _kind(other) == _kind(one)]
                words = f"may {'now' if reads else 'no longer'} be {_kind(one)}"
                yield from min(similar, key=len, default=[Break(where, words)])

    def _compared(self, old: Schema, new: Schema, where: str, seen: frozenset[Any]) -> Iterator[Break]:
        yield from self._values(old, new, where)
        for name in _BOUNDS:
            yield from self._bound(name, old.get(name), new.get(name), where)
        for name in _EXACT:
            before, after = old.get(name), new.get(name)
            if before != after and (
                (Use.WRITTEN in self.use and after is not None) or (Use.READ in self.use and before is not None)
            ):
                yield Break(where, f"{name} was {before}, now is {after}")
        yield from self._properties(old, new, where, seen)
        if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
            yield from self.breaks(old["items"], new["items"], f"{where}[]", seen)

    def _values(self, old: Schema, new: Schema, where: str) -> Iterator[Break]:
        before, after = _types(old), _types(new)
        if (Use.READ in self.use and not after <= before) or (Use.WRITTEN in self.use and not before <= after):
            yield Break(where, f"was {_kind(old)}, now is {_kind(new)}")
            return
        listed, listed_now = _listed(old), _listed(new)
        if Use.READ in self.use and listed is not None:
            added = sorted(map(repr, (listed_now or set()) - listed)) if listed_now is not None else ["any other value"]
            if added:
                yield Break(where, f"may now be {', '.join(added)}")
        if Use.WRITTEN in self.use and listed_now is not None:
            gone = sorted(map(repr, listed - listed_now)) if listed is not None else ["any other value"]
            if gone:
                yield Break(where, f"may no longer be {', '.join(gone)}")

    def _bound(self, name: str, before: float | None, after: float | None, where: str) -> Iterator[Break]:
        if before == after:
            return
        greater_is_stricter = _BOUNDS[name]
        stricter = before is None or (after is not None and (after > before) == greater_is_stricter)
        if (Use.WRITTEN if stricter else Use.READ) in self.use:
            yield Break(where, f"{name} was {before}, now is {after}")

    def _properties(self, old: Schema, new: Schema, where: str, seen: frozenset[Any]) -> Iterator[Break]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required, required_now = set(old.get("required", ())), set(new.get("required", ()))
        for name in before:
            path = f"{where}.{name}" if where else name
            if name not in after:
                yield Break(path, "is gone")
                continue
            if Use.READ in self.use and name in required - required_now:
                yield Break(path, "was always there, now may be missing")
            yield from self.breaks(before[name], after[name], path, seen)
        if Use.WRITTEN in self.use:
            for name in sorted(required_now - required):
                yield Break(f"{where}.{name}" if where else name, "is now required")
        closed = new.get("additionalProperties") is False and old.get("additionalProperties") is not False
        if closed and Use.WRITTEN in self.use:
            yield Break(where, "refuses unknown fields now")
        if isinstance(old.get("additionalProperties"), dict) and isinstance(new.get("additionalProperties"), dict):
            yield from self.breaks(old["additionalProperties"], new["additionalProperties"], f"{where}.*", seen)


def resolved(schema: Schema, document: Schema) -> Schema:
    """Resolves the schema's reference, if it has one within the document."""
    reference = schema.get("$ref", "")
    if not reference.startswith("#/"):
        return schema
    target: Any = document
    for step in reference[2:].split("/"):
        target = target[step.replace("~1", "/").replace("~0", "~")]
    return resolved({**target, **{name: value for name, value in schema.items() if name != "$ref"}}, document)


def _alternatives(schema: Schema, document: Schema) -> list[Schema]:
    plain = resolved(schema, document)
    for part in plain.get("allOf", ()):
        plain = {**resolved(part, document), **plain}
    either = plain.get("anyOf", plain.get("oneOf"))
    if either is None:
        return [plain]
    return [alternative for one in either for alternative in _alternatives(one, document)]


_ALL = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})


def _types(schema: Schema) -> frozenset[str]:
    named = schema.get("type")
    if named is None:
        listed = _listed(schema)
        return _ALL if listed is None else frozenset({"null" if listed == {None} else "string"})
    found = {named} if isinstance(named, str) else set(named)
    return frozenset(found | {"integer"} if "number" in found else found)


def _listed(schema: Schema) -> set[Any] | None:
    """The only values that are allowed; None when they are not listed."""
    if "const" in schema:
        return {schema["const"]}
    return set(schema["enum"]) if "enum" in schema else None


def _kind(schema: Schema) -> str:
    named = schema.get("type", "any")
    return named if isinstance(named, str) else "|".join(named)
