"""Who works in the demo: a few of each role."""

import base64
import hmac
from typing import NamedTuple

from webapp.leads.states import Role


class DemoUser(NamedTuple):
    name: str
    email: str
    role: Role


PEOPLE = (
    DemoUser("Vera Lindqvist", "vera@demo.example", Role.VIEWER),
    DemoUser("Viet Hoang", "viet@demo.example", Role.VIEWER),
    DemoUser("Rita Okafor", "rita@demo.example", Role.REVIEWER),
    DemoUser("Ravi Menon", "ravi@demo.example", Role.REVIEWER),
    DemoUser("Linh Pham", "linh@demo.example", Role.REVIEWER),
    DemoUser("Mona Castell", "mona@demo.example", Role.MANAGER),
    DemoUser("Marek Dvorak", "marek@demo.example", Role.MANAGER),
    DemoUser("Ada Brandt", "ada@demo.example", Role.ADMIN),
    DemoUser("Anh Tran", "anh@demo.example", Role.ADMIN),
)

TAKES_LEADS = (Role.REVIEWER, Role.MANAGER)


def password(secret_key: str, email: str) -> str:
    """The same at every start, so that it can be printed again, and nobody's guess: HOST may not be loopback."""
    digest = hmac.new(secret_key.encode(), f"demo password of {email}".encode(), "sha256").digest()
    return base64.b32encode(digest)[:16].decode().lower()
