"""The release file says what git says."""

import re
import subprocess
import tomllib

import pytest

from waybill_dev.base.state import find_state
from waybill_dev.services.programs import ROLES
from waybill_dev.services.releases import has, releases

CHECKOUT = find_state().checkout
RELEASED = releases(CHECKOUT)


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", CHECKOUT, *words], check=True, capture_output=True, text=True).stdout


def test_a_release_is_of_a_service_and_names_a_whole_commit() -> None:
    assert RELEASED.keys() <= ROLES.keys()
    assert all(re.fullmatch(r"[0-9a-f]{40}", release.commit) for release in RELEASED.values())


@pytest.mark.parametrize("service", RELEASED)
def test_a_release_was_on_the_way_here_and_calls_itself_what_we_call_it(service: str) -> None:
    release = RELEASED[service]
    if not has(CHECKOUT, release.commit):
        pytest.skip(f"this clone lacks {release.commit} of {service} {release.version}: git fetch --unshallow")
    git("merge-base", "--is-ancestor", release.commit, "HEAD")
    pyproject = tomllib.loads(git("show", f"{release.commit}:services/{service}/pyproject.toml"))
    assert pyproject["project"]["version"] == release.version
