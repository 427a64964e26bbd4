"""The published description of an API: every status an operation answers, and how to sign in."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from common.web.problems import PROBLEM_TYPE, TITLES, Problem

SECURITY_SCHEME: Final = "password"
_REF: Final = "#/components/schemas/"
_PROBLEM: Final = {"content": {PROBLEM_TYPE: {"schema": {"$ref": _REF + "Problem"}}}}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declares what else an operation answers: `@router.get("/orders/{id}", responses=responses(304, 404))`.

    What the route class knows by itself needs no mention: 400, 413, 415 and 422 of a body, 422 of parameters, what
    guards and other dependencies say in their `statuses`, 500 and 503.
    """
    return {status: {"description": TITLES[status][1], **(_PROBLEM if status >= 400 else {})} for status in statuses}


def security(scopes: Sequence[str]) -> dict[str, Any]:
    """The `security` of an operation that needs a bearer token."""
    return {"security": [{SECURITY_SCHEME: list(scopes)}]}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, in a stable order so that its committed copy shows real changes only."""
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    definition = Problem.model_json_schema(mode="serialization", ref_template=_REF + "{model}")
    schemas.update(definition.pop("$defs"))
    schemas["Problem"] = definition
    components["schemas"] = dict(sorted(schemas.items()))
    needs = [
        need
        for path in schema["paths"].values()
        for operation in path.values()
        for need in operation.get("security", ())
    ]
    if needs:
        scopes = {scope for need in needs for scope in need[SECURITY_SCHEME]}
        components["securitySchemes"] = {SECURITY_SCHEME: _scheme(sorted(scopes))}
    return schema


def _scheme(scopes: Sequence[str]) -> dict[str, Any]:
    """RFC 6749 §4.3, so that the page's Authorize button can sign in; `/token` is relative to where the page is."""
    return {
        "type": "oauth2",
        "description": "Sign in with e-mail address (as username) and password; the client fields may stay empty.",
        "flows": {"password": {"tokenUrl": "/token", "scopes": dict.fromkeys(scopes, "")}},
    }
