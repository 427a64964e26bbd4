"""Secrets at rest can be read with their key, in their place, unaltered; and in no other way."""

import pytest

from common.security.sealing import KeyEncryption, WrongKeyEncryptionKey

ONE, OTHER = KeyEncryption(b"k" * 32), KeyEncryption(b"x" * 32)


def test_a_secret_is_read_with_its_key_in_its_place_only() -> None:
    sealed = ONE.seal(b"secret", context="row 1")
    assert b"secret" not in sealed
    assert ONE.seal(b"secret", context="row 1") != sealed
    assert ONE.unseal(sealed, context="row 1", kek_id=ONE.id) == b"secret"
    flipped = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for name, encryption, text, context, kek_id in (
        ("other key", OTHER, sealed, "row 1", ONE.id),
        ("other key under the same id", OTHER, sealed, "row 1", OTHER.id),
        ("no key id", ONE, sealed, "row 1", None),
        ("other row", ONE, sealed, "row 2", ONE.id),
        ("altered", ONE, flipped, "row 1", ONE.id),
    ):
        with pytest.raises(WrongKeyEncryptionKey):
            pytest.fail(f"{name}: {encryption.unseal(text, context=context, kek_id=kek_id)!r}")
