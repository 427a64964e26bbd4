"""Which names and addresses are accepted, and in what form they are stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from users.profile import email_address, person_name


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.Lee+news@Mail.Example.CO.UK", "ann.lee+news@mail.example.co.uk"),
        ("o'brien@example.com", "o'brien@example.com"),
        ("a@b.cd", "a@b.cd"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
        ("ann@xn--bcher-kva.example", "ann@xn--bcher-kva.example"),
    ],
)
def test_an_address_is_kept_in_lower_case(typed: str, kept: str) -> None:
    assert email_address(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@example",
        "ann@localhost",
        "ann@example.c",
        "ann@example.c0",
        "ann@127.0.0.1",
        "ann@[127.0.0.1]",
        "ann@example.com.",
        "ann@-example.com",
        "ann@example-.com",
        "ann@exa_mple.com",
        "ann@example..com",
        "ann..lee@example.com",
        ".ann@example.com",
        "ann.@example.com",
        "ann lee@example.com",
        '"ann lee"@example.com',
        " ann@example.com",
        "ann@example.com\n",
        "ann@example.com,eve@example.com",
        "ann@eve@example.com",
        "ann\x00@example.com",
        "ann\r\nBcc: eve@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com",
        "a@" + "b." * 125 + "com",
        "аnn@example.com",  # Cyrillic а
        "ann@еxample.com",  # Cyrillic е
        "\u212aate@example.com",  # KELVIN SIGN, which lower-cases to k
        "ａｎｎ@example.com",
        "ann@example.com\u200b",
    ],
)
def test_an_invalid_address_or_one_that_looks_like_another_is_refused(typed: str) -> None:
    with pytest.raises(PydanticCustomError):
        email_address(typed)


@given(st.text(max_size=300) | st.emails())
def test_an_accepted_address_is_ascii_in_lower_case_and_stays_as_it_is(text: str) -> None:
    try:
        address = email_address(text)
    except PydanticCustomError:
        return
    assert address.isascii()
    assert address == address.lower() == text.lower()
    assert email_address(address) == address


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Ann", "Ann"),
        ("  Ann Lee ", "Ann Lee"),
        ("Jose\u0301", "Jos\u00e9"),
        ("李小龙", "李小龙"),
        ("نور", "نور"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("O'Brien-Smith, Jr.", "O'Brien-Smith, Jr."),
        ("🦊", "🦊"),
        ("x" * 100, "x" * 100),
    ],
)
def test_a_name_is_kept_in_nfc_without_space_around_it(typed: str, kept: str) -> None:
    assert person_name(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "\u200d\u200b",
        "x" * 101,
        "Ann\nLee",
        "Ann\tLee",
        "Ann\x00",
        "Ann\x9b",
        "Ann\u2028Lee",
        "Ann\u202egpj.exe",
    ],
)
def test_a_name_with_control_characters_or_nothing_to_see_is_refused(typed: str) -> None:
    with pytest.raises(PydanticCustomError):
        person_name(typed)


@given(st.text(max_size=110))
def test_an_accepted_name_is_printable_and_stays_as_it_is(text: str) -> None:
    try:
        name = person_name(text)
    except PydanticCustomError:
        return
    assert 1 <= len(name) <= 100
    assert person_name(name) == name
