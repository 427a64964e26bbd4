"""`deploy/releases.toml` agrees with git."""

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


def test_a_release_belongs_to_a_service_and_names_a_full_commit() -> None:
    assert RELEASED.keys() <= ROLES.keys()
    assert all(re.fullmatch(r"[0-9a-f]{40}", release.commit) for release in RELEASED.values())


@pytest.mark.parametrize("service", RELEASED)
def test_a_release_is_an_ancestor_and_has_the_version_that_we_give_it(service: str) -> None:
    release = RELEASED[service]
    if not has(CHECKOUT, release.commit):
        pytest.skip(f"this clone lacks {release.commit} of {service} {release.version}: git fetch --unshallow")
    git("merge-base", "--is-ancestor", release.commit, "HEAD")
    pyproject = tomllib.loads(git("show", f"{release.commit}:services/{service}/pyproject.toml"))
    assert pyproject["project"]["version"] == release.version
