"""The members of the Twenty workspace: who may be given a task."""

import threading
from collections.abc import Callable
from typing import Any

from webapp.clients.crm import canonical_email
from webapp.clients.twenty.records import Records
from webapp.leads.ports import Refused
from webapp.leads.task_template import one_line

_SECONDS = 300.0
_AGAIN_SECONDS = 30.0


class Members:
    """Their ids by e-mail, kept for five minutes; used by several threads."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock
        self._known: dict[str, str] = {}
        self._until = float("-inf")
        self._again = float("-inf")
        self._lock = threading.Lock()

    def id_of(self, email: str | None) -> str | None:
        """The workspace member with this e-mail; None when there is none, or the key may not read members."""
        if not email:
            return None
        wanted = canonical_email(email)
        with self._lock:
            now = self._clock()
            stale = now >= self._until
            if stale or (wanted not in self._known and now >= self._again):
                self._known = self.read()
                self._until = now + _SECONDS
                self._again = now + _AGAIN_SECONDS
            return self._known.get(wanted)

    def read(self) -> dict[str, str]:
        """Empty where the key's role may not read members: tasks then go out unassigned."""
        members: dict[str, str] = {}
        try:
            for member in self._records.all("workspaceMembers"):
                if isinstance(member.get("userEmail"), str) and isinstance(member.get("id"), str):
                    members[canonical_email(member["userEmail"])] = member["id"]
        except Refused as error:
            if error.exchange.http_status != 403:
                raise
        return members


def member_name(member: dict[str, Any]) -> str:
    name = member.get("name")
    parts = [str(name.get(part) or "") for part in ("firstName", "lastName")] if isinstance(name, dict) else []
    return one_line(" ".join(parts)) or str(member.get("userEmail") or member["id"])
