"""Alerts about deliveries: raised when one is given up, settled when nothing is stuck, and sent on to chat or mail.

An alert goes to the destinations whose ``alerts`` option is on, but not to the one that it is about. It is told at most
once to each: who was told is written before the call, since an alert that comes twice is worse than the page alone.
"""

import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import alerts, kinds
from webapp.leads.draining import SessionFactory
from webapp.leads.errors import LeadError
from webapp.leads.ports import Clients, Target, TellsAlerts, Unusable
from webapp.leads.sending import target_of
from webapp.leads.states import AlertState, DeliveryState, DestinationMode
from webapp.models.routing import Alert
from webapp.models.work import Delivery, Destination

log = logging.getLogger(__name__)

#: Kinds of alerts; the key is the destination's id.
GIVEN_UP = "deliveries_stuck"
GONE = "destination_gone"
UNUSABLE = "destination_unusable"
#: The option of a destination that wants alerts (webapp.leads.destinations).
OPTION = "alerts"
_AT_ONCE = 20
_SIDE_BY_SIDE = 4


def given_up(session: Session, target: Target, workspace_id: uuid.UUID, error: str | None, *, times: int) -> None:
    """Some deliveries to ``target`` were given up."""
    said = f" The last one: {error}" if error else ""
    message = f"{target.name}: deliveries were given up and wait for a person.{said}"
    link = f"/deliveries/dead?destination={target.id}"
    alerts.raise_alert(session, workspace_id, GIVEN_UP, str(target.id), message, link, times=times)


def gone(session: Session, target: Target) -> None:
    """The receiver said that it wants no more (410)."""
    message = f"{target.name} answered that it is gone, and was switched off. What waits for it is kept."
    alerts.raise_alert(session, target.workspace_id, GONE, str(target.id), message, "/settings/destinations")


def unusable(session: Session, target: Target, why: Unusable) -> None:
    """It cannot be called as it is set up here, whatever the delivery."""
    message = (
        f"{target.name} cannot be called: {why.message}. Nothing is lost, deliveries wait. {why.remedy} "
        "Deliveries go out by themselves then."
    )
    alerts.raise_alert(
        session, target.workspace_id, UNUSABLE, str(target.id), message, f"/settings/destinations/{target.id}"
    )


def unusable_told(session: Session, row: Destination) -> str | None:
    """What admins were told last of ``row`` that cannot be called, and of what to do about it."""
    query = sa.select(Alert.message).where(
        Alert.workspace_id == row.workspace_id, Alert.kind == UNUSABLE, Alert.key == str(row.id)
    )
    return session.scalar(query.order_by(Alert.id.desc()).limit(1))


def usable(session: Session, target: Target) -> None:
    """It can be called again."""
    alerts.resolve(session, target.workspace_id, UNUSABLE, str(target.id))


def settle(session: Session) -> int:
    """Resolve alerts of destinations where nothing is stuck any more. Returns how many."""
    standing = session.execute(
        sa.select(Alert.workspace_id, Alert.kind, Alert.key).where(
            Alert.state.in_((AlertState.OPEN, AlertState.ACKNOWLEDGED)), Alert.kind.in_((GIVEN_UP, GONE, UNUSABLE))
        )
    ).all()
    resolved = 0
    for row in standing:
        if _passed(session, row.workspace_id, row.kind, uuid.UUID(row.key)):
            resolved += alerts.resolve(session, row.workspace_id, row.kind, row.key)
    return resolved


def _passed(session: Session, workspace_id: uuid.UUID, kind: str, destination_id: uuid.UUID) -> bool:
    if kind == GONE:
        mode = session.scalar(sa.select(Destination.mode).where(Destination.id == destination_id))
        return mode is not DestinationMode.OFF
    if kind == UNUSABLE:
        standing = sa.exists().where(
            Destination.id == destination_id, Destination.problem.is_not(None), Destination.mode != DestinationMode.OFF
        )
        return not session.scalar(sa.select(standing))
    stuck = sa.exists().where(
        Delivery.workspace_id == workspace_id,
        Delivery.destination_id == destination_id,
        Delivery.state.in_((DeliveryState.DEAD, DeliveryState.UNCERTAIN)),
    )
    return not session.scalar(sa.select(stuck))


@dataclass(frozen=True, slots=True)
class _Telling:
    target: Target
    message: str
    link: str | None


def tell(session_factory: SessionFactory, clients: Clients, *, public_url: str | None, stop: Callable[[], bool]) -> int:
    """Send open alerts that nobody was told of on. Returns how many messages went out; one that cannot be sent is left to
    the alerts' page."""
    with session_factory() as session:
        tellings = _claim(session)
        session.commit()
    theirs: dict[uuid.UUID, list[_Telling]] = {}
    for one in tellings:
        theirs.setdefault(one.target.id, []).append(one)

    def say(them: list[_Telling]) -> int:
        return sum(_say(clients, one, public_url) for one in them if not stop())

    # Side by side: one chat that hangs is no reason for another to hear nothing.
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="tell") as pool:
        return sum(pool.map(say, theirs.values()))


def _say(clients: Clients, one: _Telling, public_url: str | None) -> bool:
    link = f"{public_url.rstrip('/')}{one.link}" if public_url and one.link else None
    try:
        client = clients.client_for(one.target)
        if not isinstance(client, TellsAlerts):
            return False
        client.tell(one.message, link)
    except LeadError as error:
        log.warning("an alert could not be sent to %s: %s", one.target.name, error.message)
        return False
    return True


def has_due(session: Session) -> bool:
    """Is there an alert to send on, and somebody to send it to?"""
    return bool(session.scalar(sa.select(sa.exists().where(*_unsaid(), *_takers()))))


def _unsaid() -> list[sa.ColumnElement[bool]]:
    return [Alert.state == AlertState.OPEN, Alert.notified_at.is_(None)]


def _takers() -> list[sa.ColumnElement[bool]]:
    """Of an alert: destinations of its workspace that want alerts, but not the one that it is about."""
    tellers = [kind for kind, known in kinds.KINDS.items() if known.tells_alerts]
    return [
        Destination.workspace_id == Alert.workspace_id,
        sa.cast(Destination.id, sa.Text) != Alert.key,
        Destination.kind.in_(tellers),
        Destination.mode == DestinationMode.LIVE,
        Destination.options[OPTION].as_boolean(),
    ]


def _claim(session: Session) -> list[_Telling]:
    found = session.scalars(
        sa.select(Alert)
        .where(*_unsaid(), sa.exists().where(*_takers()))
        .order_by(Alert.id)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    tellings: list[_Telling] = []
    for alert in found:
        takers = session.scalars(
            sa.select(Destination)
            .join(Alert, sa.and_(*_takers()))
            .where(Alert.id == alert.id)
            .order_by(Destination.name)
        ).all()
        alert.notified_at = sa.func.now()
        tellings += [_Telling(target_of(row), alert.message, alert.link) for row in takers]
    session.flush()
    return tellings
