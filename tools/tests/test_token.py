"""`./dev token`: an access token on stdout, and a sentence on stderr where there is none."""

import subprocess

import httpx
import pytest

from waybill_dev.testing import StackUnderTest

pytestmark = pytest.mark.e2e
PASSWORD = "correct horse battery staple"


def with_password(stack: StackUnderTest, password: str) -> StackUnderTest:
    return StackUnderTest(stack.folder, {"WAYBILL_PASSWORD": password})


def refusal(stack: StackUnderTest, email: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        stack.dev("token", email)
    assert refused.value.returncode == 1
    return str(refused.value.stderr)


def test_the_administrators_token_needs_no_password(stack: StackUnderTest) -> None:
    status = stack.addresses
    bearer = {"Authorization": f"Bearer {stack.dev('token', status['admin']['email']).strip()}"}
    assert httpx.get(f"{status['gateway']}/me", headers=bearer).json()["role"] == "admin"


def test_the_password_comes_from_the_environment(stack: StackUnderTest) -> None:
    email = "token@waybill.example"
    gateway = stack.addresses["gateway"]
    httpx.post(f"{gateway}/users", json={"name": "Ada", "email": email, "password": PASSWORD})
    bearer = {"Authorization": f"Bearer {with_password(stack, PASSWORD).dev('token', email).strip()}"}
    assert httpx.get(f"{gateway}/me", headers=bearer).json()["email"] == email
    assert f"./dev: no token for {email}: " in refusal(with_password(stack, "something else entirely"), email)


def test_without_terminal_and_variable_it_says_which_to_set(stack: StackUnderTest) -> None:
    assert "WAYBILL_PASSWORD" in refusal(stack, "token@waybill.example")
