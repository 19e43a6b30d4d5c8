"""One dead destination holds nothing that another needs; what nobody can tell waits for a person."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.server import Request, Response
from tests.fakes.slack import SlackFake
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import (
    CIPHER,
    clients,
    drain,
    new_holder,
    outcomes,
    planned,
    rows,
    states,
    twenty_destination,
    webhook_destination,
)  # fmt: skip
from webapp.leads import deliver, outbox
from webapp.leads.claims import DELIVERIES, claim
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode
from webapp.models import Delivery, DeliveryAttempt, Destination, Workspace

Factory = sessionmaker[Session]
LEADS = 40


def test_a_destination_that_hangs_leaves_the_others_their_threads(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    """The dead one only answers once everything has gone to the other one: it would never, if it held all threads."""
    healthy_done, in_time = threading.Event(), []
    with WebhookReceiver() as dead, WebhookReceiver() as healthy:
        take, keep = dead.handle, healthy.handle

        def hang(request: Request) -> Response:
            in_time.append(healthy_done.wait(20))
            return take(request)

        def count(request: Request) -> Response:
            answer = keep(request)
            if len(healthy.deliveries) == LEADS:
                healthy_done.set()
            return answer

        dead.handle, healthy.handle = hang, count  # type: ignore[method-assign]
        webhook_destination(session, workspace, dead, name="A dead one")
        webhook_destination(session, workspace, healthy, name="B healthy")
        for _ in range(LEADS):
            planned(session, workspace)
        drain(session_factory, registry=clients(delivery_timeout=30), max_seconds=60)
        assert all(in_time) and len(in_time) == LEADS
    session.commit()
    assert session.scalars(sa.select(Delivery.state).distinct()).all() == [DeliveryState.DELIVERED]


def test_a_destination_that_has_failed_gets_few_threads(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    at_once, most, lock = [0], [0], threading.Lock()
    with WebhookReceiver() as receiver:
        take = receiver.handle

        def slowly(request: Request) -> Response:
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            receiver._closing.wait(0.02)
            with lock:
                at_once[0] -= 1
            return Response(503) if len(receiver.requests) < 12 else take(request)

        receiver.handle = slowly  # type: ignore[method-assign]
        webhook_destination(session, workspace, receiver, failures=1)
        for _ in range(12):
            planned(session, workspace)
        drain(session_factory, max_rows=8)
    assert most[0] == deliver.DeliveryPolicy().share_failing


def _slack_webhook(session: Session, workspace: Workspace, slack: SlackFake, **options: str) -> None:
    session.add(
        Destination(
            workspace_id=workspace.id, kind=DestinationKind.SLACK_WEBHOOK, name="Slack",
            credentials=CIPHER.encrypt({"url": slack.webhook_url}), options=options,
        )
    )  # fmt: skip
    session.commit()


@pytest.mark.parametrize(("option", "state", "messages"), [(None, "uncertain", 1), ("send_again", "delivered", 2)])
def test_what_nobody_can_tell_is_repeated_only_where_the_setting_says_so(
    session: Session, workspace: Workspace, session_factory: Factory, option: str | None, state: str, messages: int
) -> None:
    with SlackFake() as slack:
        _slack_webhook(session, workspace, slack, **({"when_uncertain": option} if option else {}))
        planned(session, workspace)
        slack.fail_next(kind="reset_after")
        for _ in range(3):
            drain(session_factory)
            threading.Event().wait(0.01)
        assert (states(session), len(slack.messages["webhook"])) == ({"message": state}, messages)


def test_a_worker_that_dies_in_the_middle_leaves_it_uncertain_and_a_person_sends_it_again(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with SlackFake() as slack:
        _slack_webhook(session, workspace, slack)
        planned(session, workspace)
        assert claim(session, DELIVERIES, new_holder(session, "host/deliveries-1"), limit=1)
        session.commit()
        drain(session_factory, holder=new_holder(session, "host/deliveries-1"))
        row = rows(session)["message"]
        assert (row.state, outcomes(session, row)) == (DeliveryState.UNCERTAIN, ["uncertain", "uncertain"])
        assert slack.messages == {}
        outbox.replay(session, row, actor="Mai")
        session.commit()
        drain(session_factory)
        assert (states(session), len(slack.messages["webhook"])) == ({"message": "delivered"}, 1)


def test_a_watching_crm_records_every_step_and_calls_nothing(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with TwentyFake() as twenty:
        config = {"url": twenty.url, "companies": True, "notes": True}
        crm = twenty_destination(session, workspace, twenty, mode=DestinationMode.SHADOW, config=config)
        planned(session, workspace, company="Acme")
        drain(session_factory)
        assert set(states(session).values()) == {"shadowed"}
        stored = rows(session)
        assert list(stored) == ["person", "task", "task_target", "company", "note"]
        assert (stored["company"].payload, twenty.requests) == ({"name": "Acme"}, [])
        session.execute(sa.update(Destination).values(mode=DestinationMode.LIVE))
        session.execute(sa.update(Delivery).values(state=DeliveryState.PENDING))
        session.commit()
        for _ in range(5):
            drain(session_factory)
        assert set(states(session).values()) == {"delivered"}
        (company,), (person,), (note,), (link,) = twenty.companies, twenty.people, twenty.notes, twenty.note_targets
        assert person["companyId"] == company["id"]
        assert (link["noteId"], link["targetPersonId"]) == (note["id"], person["id"])
        # A second lead from there finds the company.
        planned(session, workspace, company="ACME", email="second@example.com")
        for _ in range(5):
            drain(session_factory)
        assert (len(twenty.companies), len(twenty.people), len(twenty.notes)) == (1, 2, 2)
        assert crm.name == "Twenty"


@pytest.mark.parametrize("path", ["companies", "notes", "noteTargets"])
@pytest.mark.parametrize("kind", ["500_after", "reset_after", "cut_after", "hang_after"])
def test_company_and_note_are_made_once_whatever_happens(
    session: Session, workspace: Workspace, session_factory: Factory, path: str, kind: str
) -> None:
    with TwentyFake() as twenty:
        config: dict[str, Any] = {"url": twenty.url, "companies": True, "notes": True}
        twenty_destination(session, workspace, twenty, config=config)
        planned(session, workspace, company="Acme")
        twenty.fail_next(f"POST /{path}", kind=kind, seconds=1)
        for _ in range(6):
            drain(session_factory, registry=clients(delivery_timeout=0.5))
        assert set(states(session).values()) == {"delivered"}
        assert (len(twenty.companies), len(twenty.notes), len(twenty.note_targets)) == (1, 1, 1)
    assert session.scalar(sa.select(sa.func.count()).select_from(DeliveryAttempt)) == 6
