"""Sealing payloads: what is encrypted, what is told from it, and what is never decrypted."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from webapp.security.fields import FieldCipher, is_sealed, is_sensitive

CIPHER = FieldCipher([Fernet.generate_key().decode()])


def test_sealing_keeps_the_shape_and_hides_what_is_sensitive() -> None:
    plain = {"a": [1, {"salary": 5, "b": None}], "dob": None, "Birth date": {"day": 1}, "n": [[], {}], "t": "enc:x"}
    sealed = CIPHER.seal(plain)
    assert list(sealed) == list(plain) and is_sensitive("Birth date") and not is_sensitive("a")
    assert is_sealed(sealed["a"][1]["salary"]) and is_sealed(sealed["Birth date"])
    assert sealed | {"a": 0, "Birth date": 0} == plain | {"a": 0, "Birth date": 0}
    assert plain["a"] == [1, {"salary": 5, "b": None}]  # a copy
    assert CIPHER.unseal(sealed, CIPHER.tokens(sealed)) == plain
    assert CIPHER.seal(sealed, but=CIPHER.tokens(sealed)) == sealed
    assert CIPHER.seal("text") == "text" and CIPHER.seal([{"ssn": 1}]) != [{"ssn": 1}]


def test_only_what_is_named_and_stands_where_sealing_puts_it_is_decrypted() -> None:
    stolen, own = CIPHER.encrypt("secret"), CIPHER.encrypt(90_000)
    given = {"note": own, "salary": own, "income": stolen, "deep": [{"dob": own, "x": [own]}]}
    assert CIPHER.unseal(given, {own}) == {
        "note": own, "salary": 90_000, "income": stolen, "deep": [{"dob": 90_000, "x": [own]}],
    }  # fmt: skip
    assert CIPHER.tokens({"note": own}) == frozenset()
    arrived = CIPHER.seal({"salary": stolen})  # somebody sends one: it is sealed as the text that it is
    assert CIPHER.unseal(arrived, CIPHER.tokens(arrived)) == {"salary": stolen}
    assert CIPHER.unseal({"salary": "enc:gone"}, {"enc:gone"}) == {"salary": "enc:gone"}


def test_however_deep_nothing_sensitive_stays_in_the_clear() -> None:
    deep: Any = {"salary": 90_000}
    for _ in range(5_000):
        deep = [deep]
    inner = CIPHER.seal(deep)
    while isinstance(inner, list):
        inner = inner[0]
    assert is_sealed(inner["salary"])
    assert is_sealed(CIPHER.seal({"salary": deep})["salary"])


def test_a_fingerprint_is_of_the_value_and_the_key() -> None:
    other = FieldCipher([Fernet.generate_key().decode()])
    assert CIPHER.fingerprint({"salary": 1}) == CIPHER.fingerprint({"salary": 1})
    assert (
        len({CIPHER.fingerprint({"salary": 1}), CIPHER.fingerprint({"salary": 2}), other.fingerprint({"salary": 1})})
        == 3
    )


@pytest.mark.parametrize("name", ["date_of_birth", "screen_0_ssn_1", "user_dob", "DOB", "monthly_income", "SSN"])
def test_sensitive_names_wherever_they_stand_in_a_name(name: str) -> None:
    assert is_sensitive(name)


@pytest.mark.parametrize("name", ["name", "adobe", "lessn", "phone", "message"])
def test_names_that_only_look_like_it(name: str) -> None:
    assert not is_sensitive(name)
