"""Rules of the services that no linter knows, read from their source."""

import ast
from collections.abc import Iterator

from waybill_dev.base.state import find_state

CHECKOUT = find_state().checkout


def calls(*folders: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in the Python files below the folders, with `file:line`."""
    for folder in folders:
        for path in sorted(CHECKOUT.glob(f"{folder}/**/*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(CHECKOUT)}:{node.lineno}", node


def test_no_service_commits_or_rolls_back_because_the_edge_owns_the_transaction() -> None:
    ending = [
        place
        for place, call in calls("services/*/src")
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"commit", "rollback"}
    ]
    assert ending == []


def test_only_placing_and_changing_an_order_commit_in_groups_of_their_own() -> None:
    """Every other change is made by the ORM, in the edge's transaction."""
    grouped = {place.partition(":")[0] for place, call in calls("services/*/src") if _name(call.func) == "GroupCommit"}
    assert grouped == {f"services/orders/src/orders/{name}.py" for name in ("changing", "placing")}


def test_a_session_dependency_commits_before_the_response_is_sent() -> None:
    """With FastAPI's default scope the client receives its 200 before a commit that then fails."""
    sessions = {
        place: call
        for place, call in calls("services/*/src", "libs/common/src")
        if _name(call.func) == "Depends" and call.args and _name(call.args[0]) == "get_session"
    }
    assert sessions
    for place, call in sessions.items():
        scopes = [
            word.value.value for word in call.keywords if word.arg == "scope" and isinstance(word.value, ast.Constant)
        ]
        assert scopes == ["function"], place


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
