"""Lead Ads: a form that somebody filled in is only announced; a worker fetches the answers (``fetching``)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import Door, FetchKind, FetchState, QuarantineState
from webapp.models.base import new_id
from webapp.models.inbound import Fetch
from webapp.models.lead import Quarantined

#: Its name in quarantine.
DIALECT = "leadgen"


@dataclass(frozen=True, slots=True)
class Announced:
    """A form's answers wait at Meta. ``change``: the webhook's change, with the page's id in its value."""

    leadgen_id: str
    page_id: str
    change: dict[str, Any]


def announce(
    session: Session, workspace_id: uuid.UUID, announced: Sequence[Announced], *, again: bool = False
) -> list[uuid.UUID]:
    """Have the answers fetched: one row for each form, however often it is announced. ``again``: also those that were
    given up. Returns the fetches that wait now and did not before; the caller commits and rings ``fetches``."""
    rows = {
        one.leadgen_id: {
            "id": new_id(),
            "workspace_id": workspace_id,
            "kind": FetchKind.LEADGEN,
            "target": one.leadgen_id,
            "payload": one.change,
        }
        for one in announced
    }
    if not rows:
        return []
    statement = insert(Fetch).values([rows[target] for target in sorted(rows)])  # sorted: no deadlocks
    keys = [Fetch.workspace_id, Fetch.kind, Fetch.target]
    if again:
        statement = statement.on_conflict_do_update(
            index_elements=keys,
            set_=_AGAIN | {"payload": statement.excluded.payload},
            where=Fetch.state == FetchState.DEAD,
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    return list(session.scalars(statement.returning(Fetch.id)))


def ask_again(session: Session, workspace_id: uuid.UUID, page_id: str) -> int:
    """Fetch what was given up on for this page; the caller commits and rings ``fetches``. Returns how many wait now."""
    asked = session.execute(
        sa.update(Fetch)
        .where(
            Fetch.workspace_id == workspace_id,
            Fetch.kind == FetchKind.LEADGEN,
            Fetch.state == FetchState.DEAD,
            Fetch.payload["value"]["page_id"].astext == page_id,
        )
        .values(_AGAIN)
        .execution_options(synchronize_session=False)
        .returning(Fetch.id)
    )
    return len(asked.all())


def given_up(session: Session, fetch: Fetch, reason: str) -> None:
    """The answers could not be had: kept where people look for what was not understood, once however often it fails."""
    held: Quarantined | None = session.scalar(_held(fetch))
    if held is not None:
        held.reason = reason
        return
    raw = {"id": fetch.payload.get("value", {}).get("page_id"), "changes": [fetch.payload]}
    quarantine(session, fetch.workspace_id, Door.SOCIAL, DIALECT, Bad(reason, raw), source_id=fetch.id)


def fetched(session: Session, fetch: Fetch) -> None:
    """The answers are here after all: nobody needs to look after them any more."""
    held: Quarantined | None = session.scalar(_held(fetch))
    if held is not None:
        held.state, held.decided_by, held.decided_at = QuarantineState.REPLAYED, audit.SYSTEM, sa.func.now()


def _held(fetch: Fetch) -> sa.Select[Any]:
    return sa.select(Quarantined).where(
        Quarantined.workspace_id == fetch.workspace_id,
        Quarantined.state == QuarantineState.HELD,
        Quarantined.dialect == DIALECT,
        Quarantined.source_id == fetch.id,
    )


def waiting(session: Session, workspace_id: uuid.UUID) -> dict[str, int]:
    """Page id → how many of its forms were given up and can be asked for again."""
    page_id = Fetch.payload["value"]["page_id"].astext
    rows = session.execute(
        sa.select(page_id, sa.func.count())
        .where(Fetch.workspace_id == workspace_id, Fetch.kind == FetchKind.LEADGEN, Fetch.state == FetchState.DEAD)
        .group_by(page_id)
    )
    return {str(row[0]): row[1] for row in rows}


#: What makes a row that was given up wait for its turn again.
_AGAIN: dict[str, Any] = {
    "state": FetchState.PENDING,
    "tries": 0,
    "last_error": None,
    "finished_at": None,
    "due_at": sa.func.now(),
}
