"""Addresses as the library reads them, the quick way and the long one."""

import email_validator
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webapp.leads import dedupe

_LABEL = st.text("abcXYZ019-_é", min_size=0, max_size=5) | st.sampled_from(
    [
        "xn--bcher-kva",
        "ab--c",
        "-a",
        "a-",
        "a" * 63,
        "a" * 64,
        "com",
        "test",
        "localhost",
        "LOCAL",
        "onion",
        "arpa",
        "1",
    ]
)


def _by_library(domain: str) -> bool:
    try:
        parsed = email_validator.validate_email(f"a@{domain}", check_deliverability=False)
    except email_validator.EmailNotValidError:
        return False
    return parsed.ascii_domain.lower() == domain.lower()


@given(st.lists(_LABEL, min_size=1, max_size=4).map(".".join))
@example(".".join(["a" * 63] * 4))
def test_a_domain_is_one_exactly_when_the_library_says_so(domain: str) -> None:
    assert dedupe._is_domain.__wrapped__(domain) == _by_library(domain)


@pytest.mark.parametrize("domain", ["acme.example.com", "a-b.co", "ACME.COM", "my.test", "test.com", "mylocal.invalid"])
def test_domains_that_are_told_apart_by_their_use(domain: str) -> None:
    assert dedupe._is_domain.__wrapped__(domain) == _by_library(domain)
