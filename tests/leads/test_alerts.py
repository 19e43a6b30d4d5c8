"""Alerts: one stands per kind and key, counted while it does; people acknowledge and resolve."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from webapp.leads import alerting, alerts, counts
from webapp.leads.errors import Conflict, NotFound
from webapp.leads.states import AlertState, DestinationKind
from webapp.models import Alert, AuditEvent, Destination, Workspace


def stored(session: Session) -> list[Alert]:
    session.expire_all()
    return list(session.scalars(sa.select(Alert).order_by(Alert.id)))


def test_what_happens_again_is_counted_with_the_last_message(session: Session, workspace: Workspace) -> None:
    alerts.raise_alert(session, workspace.id, "routing_nobody", "", "one lead", "/queue")
    alerts.raise_alert(session, workspace.id, "routing_nobody", "", "three more", "/queue?view=all", times=3)
    alerts.raise_alert(session, workspace.id, "routing_nobody", "other", "another key")
    alerts.raise_alert(session, factories.make_workspace(session).id, "routing_nobody", "", "elsewhere")
    first, other, theirs = stored(session)
    assert (first.times, first.message, first.link) == (4, "three more", "/queue?view=all")
    assert (other.times, theirs.times) == (1, 1)
    assert alerts.standing(session, workspace.id) == {"routing_nobody": 2}
    assert alerts.standing(session, None) == {"routing_nobody": 3}


def test_once_resolved_the_next_time_is_a_new_alert(session: Session, workspace: Workspace) -> None:
    assert not alerts.resolve(session, workspace.id, "scoring_fallback", "")
    alerts.raise_alert(session, workspace.id, "scoring_fallback", "", "first")
    assert alerts.resolve(session, workspace.id, "scoring_fallback", "")
    assert not alerts.resolve(session, workspace.id, "scoring_fallback", "")
    alerts.raise_alert(session, workspace.id, "scoring_fallback", "", "second")
    before, after = stored(session)
    assert (before.state, before.resolved_by, before.message) == (AlertState.RESOLVED, "SYSTEM", "first")
    assert (after.state, after.times, after.notified_at) == (AlertState.OPEN, 1, None)


def test_an_acknowledged_one_still_stands_and_is_counted_on(session: Session, workspace: Workspace) -> None:
    alerts.raise_alert(session, workspace.id, "routing_failed", "", "broken")
    (alert,) = stored(session)
    assert counts.glance(session, workspace.id).alerts.n == 1
    alerts.acknowledge(session, workspace.id, alert.id, actor="Ana")
    alerts.acknowledge(session, workspace.id, alert.id, actor="Bao")
    alerts.raise_alert(session, workspace.id, "routing_failed", "", "still broken")
    (alert,) = stored(session)
    assert (alert.state, alert.acknowledged_by, alert.times) == (AlertState.ACKNOWLEDGED, "Ana", 2)
    assert counts.glance(session, workspace.id).alerts.n == 0
    alerts.close(session, workspace.id, alert.id, actor="Bao")
    alerts.close(session, workspace.id, alert.id, actor="Ana")
    (alert,) = stored(session)
    assert (alert.state, alert.resolved_by) == (AlertState.RESOLVED, "Bao") and alert.resolved_at
    with pytest.raises(Conflict):
        alerts.acknowledge(session, workspace.id, alert.id, actor="Ana")
    told = session.scalars(sa.select(AuditEvent.event_type).where(AuditEvent.event_type.like("ALERT%"))).all()
    assert sorted(told) == ["ALERT_ACKNOWLEDGED", "ALERT_RESOLVED"]


def test_another_workspaces_alert_does_not_exist(session: Session, workspace: Workspace) -> None:
    alerts.raise_alert(session, factories.make_workspace(session).id, "routing_failed", "", "theirs")
    (alert,) = stored(session)
    for do in (alerts.acknowledge, alerts.close):
        with pytest.raises(NotFound):
            do(session, workspace.id, alert.id, actor="Ana")


@pytest.mark.parametrize(
    ("kind", "link"), [("Routing", None), ("", None), ("x" * 41, None), ("ok", "https://elsewhere"), ("ok", "//evil")]
)
def test_the_database_refuses_odd_kinds_and_links_to_elsewhere(
    session: Session, workspace: Workspace, kind: str, link: str | None
) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        alerts.raise_alert(session, workspace.id, kind, "", "x", link)
    session.rollback()


def test_workers_that_raise_at_once_make_one(
    session: Session, session_factory: sessionmaker[Session], workspace: Workspace
) -> None:
    workspace_id = workspace.id

    def work() -> None:
        for _ in range(5):
            with session_factory.begin() as mine:
                alerts.raise_alert(mine, workspace_id, "routing_nobody", "", "nobody", times=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (alert,) = stored(session)
    assert alert.times == 40


def test_alerts_that_nobody_takes_hold_up_no_others(
    session: Session, session_factory: sessionmaker[Session], workspace: Workspace
) -> None:
    elsewhere = factories.make_workspace(session)
    there = Destination(
        workspace_id=workspace.id, kind=DestinationKind.SLACK_WEBHOOK, name="Chat", options={"alerts": True}, config={}
    )
    session.add(there)
    session.flush()
    for number in range(25):
        alerts.raise_alert(session, elsewhere.id, "routing_nobody", str(number), "theirs")
    alerts.raise_alert(session, workspace.id, alerting.GIVEN_UP, str(there.id), "about itself")
    session.commit()
    assert not alerting.has_due(session)
    alerts.raise_alert(session, workspace.id, "routing_nobody", "", "ours", "/queue")
    session.commit()
    assert alerting.has_due(session)
    heard = _Heard()
    assert alerting.tell(session_factory, heard, public_url=None, stop=lambda: False) == 1
    assert heard.said == ["ours"]
    assert not alerting.has_due(session)
    assert {alert.message for alert in stored(session) if alert.notified_at} == {"ours"}


class _Heard:
    """Clients, and a client, that keep what they are told."""

    reconciles = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def client_for(self, target: Any) -> Any:
        return self

    def tell(self, message: str, link: str | None) -> None:
        self.said.append(message)
