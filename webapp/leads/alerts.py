"""Alerts: what admins should see to. One stands per kind and key; while it does, what happens again is counted on it.

Whoever notices trouble calls :func:`raise_alert`, whoever notices that it has passed calls :func:`resolve`; both belong
to the caller's transaction and cost one statement. People acknowledge (it is theirs; it still stands) and resolve.
``notified_at`` is kept by whoever sends alerts on to chat or mail.
"""

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.listings import Listing, listing
from webapp.leads.states import AlertState
from webapp.models.base import new_id
from webapp.models.routing import Alert

#: Kinds that routing and the stages raise. Other parts name their own; words are in webapp.views.words.ALERT.
ROUTING_NOBODY = "routing_nobody"
ROUTING_FAILED = "routing_failed"
SCORING_FALLBACK = "scoring_fallback"

MAX_MESSAGE = 500
STANDING = frozenset({AlertState.OPEN, AlertState.ACKNOWLEDGED})
#: Spelt as the partial indexes spell it.
_STANDS = sa.text("alerts.state IN ('open', 'acknowledged')")


def raise_alert(
    session: Session,
    workspace_id: uuid.UUID,
    kind: str,
    key: str,
    message: str,
    link: str | None = None,
    *,
    times: int = 1,
) -> None:
    """Open an alert, or count ``times`` on the one of this ``kind`` and ``key`` that stands, with the new message.

    ``kind``: lower case and underscores, at most 40 characters. ``key``: which of them (a destination's id, or "").
    ``message``: a sentence for people: what happened, what was kept, what to do. ``link``: a path of the console.
    Of several alerts in one transaction raise them in order of (kind, key), so that two workers cannot deadlock.
    """
    statement = insert(Alert).values(
        id=new_id(),
        workspace_id=workspace_id,
        kind=kind,
        key=key,
        message=message[:MAX_MESSAGE],
        link=link,
        times=times,
    )
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Alert.workspace_id, Alert.kind, Alert.key],
            index_where=sa.text("state IN ('open', 'acknowledged')"),
            set_={
                "times": Alert.times + new.times,
                "last_at": sa.func.now(),
                "message": new.message,
                "link": new.link,
            },
        ),
        execution_options={"synchronize_session": False},
    )


def resolve(session: Session, workspace_id: uuid.UUID, kind: str, key: str) -> bool:
    """The trouble has passed. False when no such alert stood, which costs a look into an index."""
    found = session.execute(
        sa.update(Alert)
        .where(Alert.workspace_id == workspace_id, Alert.kind == kind, Alert.key == key, _STANDS)
        .values(state=AlertState.RESOLVED, resolved_at=sa.func.now(), resolved_by=audit.SYSTEM)
        .returning(Alert.id)
        .execution_options(synchronize_session=False)
    ).all()
    return bool(found)


def acknowledge(session: Session, workspace_id: uuid.UUID, alert_id: uuid.UUID, *, actor: str) -> Alert:
    """Somebody sees to it. NotFound; Conflict when it is resolved. Acknowledged by another already: stays theirs."""
    alert = _locked(session, workspace_id, alert_id)
    if alert.state is AlertState.RESOLVED:
        raise Conflict("This alert is resolved already.")
    if alert.state is AlertState.OPEN:
        alert.state, alert.acknowledged_by = AlertState.ACKNOWLEDGED, actor
        alert.acknowledged_at = sa.func.now()
        audit.record(session, workspace_id, "ALERT_ACKNOWLEDGED", actor=actor, kind=alert.kind, alert=alert.message)
        session.flush()
    return alert


def close(session: Session, workspace_id: uuid.UUID, alert_id: uuid.UUID, *, actor: str) -> Alert:
    """A person says that it is settled. NotFound; closing a resolved one changes nothing."""
    alert = _locked(session, workspace_id, alert_id)
    if alert.state is not AlertState.RESOLVED:
        alert.state, alert.resolved_by = AlertState.RESOLVED, actor
        alert.resolved_at = sa.func.now()
        audit.record(session, workspace_id, "ALERT_RESOLVED", actor=actor, kind=alert.kind, alert=alert.message)
        session.flush()
    return alert


def page(session: Session, workspace_id: uuid.UUID, *, standing: bool, cursor: str | None) -> Listing:
    """Alerts that stand (or that are resolved), newest first."""
    where: list[Any] = [Alert.workspace_id == workspace_id]
    where.append(_STANDS if standing else sa.text("alerts.state = 'resolved'"))
    columns = [
        Alert.id, Alert.created_at, Alert.kind, Alert.message, Alert.link, Alert.state, Alert.times, Alert.last_at,
        Alert.acknowledged_by, Alert.acknowledged_at, Alert.resolved_by, Alert.resolved_at,
    ]  # fmt: skip
    return listing(session, Alert, where, columns, lambda query: query, cursor)


def standing(session: Session, workspace_id: uuid.UUID | None) -> dict[str, int]:
    """kind → alerts that stand, of one workspace or (None) of all; for metrics."""
    query = sa.select(Alert.kind, sa.func.count()).where(_STANDS).group_by(Alert.kind)
    if workspace_id is not None:
        query = query.where(Alert.workspace_id == workspace_id)
    return {row[0]: row[1] for row in session.execute(query)}


def _locked(session: Session, workspace_id: uuid.UUID, alert_id: uuid.UUID) -> Alert:
    query = sa.select(Alert).where(Alert.workspace_id == workspace_id, Alert.id == alert_id).with_for_update()
    alert: Alert | None = session.scalar(query, execution_options={"populate_existing": True})
    if alert is None:
        raise NotFound("There is no such alert.")
    return alert
