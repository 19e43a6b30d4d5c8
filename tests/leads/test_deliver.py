"""The drain: once, in order, whatever the other side and the workers do."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from sqlalchemy.orm import Session, sessionmaker

from tests.factories import make_lead, make_user
from tests.fakes.tls import signed
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import SECRET, WebhookReceiver
from tests.leads.delivering import (
    CIPHER,
    EAGER,
    Limits,
    all_states,
    clients,
    count,
    decided_lead,
    drain,
    events,
    new_holder,
    outcomes,
    planned,
    rows,
    states,
    twenty_destination,
    webhook_destination,
)
from tests.waiting import until
from webapp.clients.registry import Registry
from webapp.leads import alerting, deliver, delivery_waits, destinations, sending
from webapp.leads.claims import Holder, SlotTaken
from webapp.leads.delivery_waits import Wait
from webapp.leads.destinations import Wanted
from webapp.leads.ports import DeliveryRequest, Receipt, Target
from webapp.leads.states import (
    AlertState,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    Door,
    Intent,
    LeadStatus,
    Priority,
)
from webapp.models import Alert, Delivery, DeliveryAttempt, Destination, Lead, Workspace
from webapp.security.fields import FieldCipher

Factory = sessionmaker[Session]
DONE = {"person": "delivered", "task": "delivered", "task_target": "delivered"}


@pytest.fixture
def twenty() -> Iterator[TwentyFake]:
    with TwentyFake() as fake:
        yield fake


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as fake:
        yield fake


@pytest.fixture
def crm(session: Session, workspace: Workspace, twenty: TwentyFake) -> Destination:
    return twenty_destination(session, workspace, twenty)


def _once(twenty: TwentyFake, leads: int = 1) -> None:
    assert (len(twenty.people), len(twenty.tasks), len(twenty.task_targets)) == (leads, leads, leads)


def _until_done(session: Session, session_factory: Factory, *, seconds: float = 10, **over: Any) -> None:
    ends_at = time.monotonic() + seconds
    while all_states(session) != {"delivered"}:
        assert time.monotonic() < ends_at, states(session)
        drain(session_factory, **over)
        time.sleep(0.01)


def test_one_drain_takes_a_lead_all_the_way(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    rep = make_user(session, workspace)
    member = twenty.add_member(rep.email)
    lead = planned(session, workspace, assignee_id=rep.id)
    drained = drain(session_factory)
    assert (drained.done, drained.more) == (3, False)
    assert states(session) == DONE
    _once(twenty)
    (task,), (person,), (target,) = twenty.tasks, twenty.people, twenty.task_targets
    assert task["assigneeId"] == member
    assert (target["taskId"], target["targetPersonId"]) == (task["id"], person["id"])
    stored = rows(session)
    assert (stored["person"].remote_id, stored["task"].remote_id) == (person["id"], task["id"])
    assert stored["task"].delivered_at is not None
    assert stored["task"].payload == twenty.calls("POST /tasks")[0].json
    assert [event.details["action"] for event in events(session, lead.id, "DELIVERY_SENT")] == list(DONE)
    (attempt,) = session.scalars(sa.select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == stored["person"].id))
    assert (attempt.outcome, attempt.http_status, attempt.attempt) == ("delivered", 201, 1)
    assert attempt.ms is not None
    assert str(lead.email) not in (attempt.excerpt or "")


def test_nothing_is_sent_before_it_is_due(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = decided_lead(session, workspace)
    deliver.plan(session, lead, due_in_seconds=30)
    session.commit()
    assert drain(session_factory).done == 0
    assert deliver.cancel(session, lead.id, reason="undone") == 3
    session.execute(sa.update(Delivery).values(due_at=sa.func.now()))
    session.commit()
    assert drain(session_factory).done == 0
    assert twenty.requests == []


def test_a_person_who_wants_no_more_messages_gets_none(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = planned(session, workspace)
    make_lead(session, workspace, "please unsubscribe me from everything", email=lead.email)
    drain(session_factory)
    assert states(session)["person"] == "cancelled"
    assert twenty.requests == []


@pytest.mark.parametrize(
    "change",
    [
        sa.update(Lead).values(status=LeadStatus.REJECTED),
        sa.update(Lead).values(status=LeadStatus.NEW_DRAFT),
        sa.update(Lead).values(intent=Intent.SPAM),
    ],
)
def test_a_lead_that_may_no_longer_be_delivered_is_not(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination, change: Any
) -> None:
    lead = planned(session, workspace)
    session.execute(change)  # behind the outbox's back
    session.commit()
    drain(session_factory)
    assert states(session)["person"] == "cancelled"
    assert twenty.requests == []
    assert events(session, lead.id, "DELIVERY_CANCELLED")
    session.execute(sa.update(Lead).values(status=LeadStatus.APPROVED, intent=Intent.INQUIRY_PRICE))
    session.refresh(lead)
    deliver.plan(session, lead, due_in_seconds=0)
    session.commit()
    drain(session_factory)
    assert states(session) == DONE
    assert outcomes(session, rows(session)["person"]) == ["delivered"]


def test_two_leads_of_one_person_are_one_person_with_two_tasks(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for message in ("How much is it for 5 seats?", "Can we have a demo on Monday?"):
        planned(session, workspace, message=message, email="same@example.com", name="Same")
    _until_done(session, session_factory)
    assert (len(twenty.people), len(twenty.tasks), len(twenty.task_targets)) == (1, 2, 2)


FAULTS = ["500", "500_after", "503", "reset_before", "reset_after", "hang", "hang_after", "garbage"]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("path", ["people", "tasks", "taskTargets"])
def test_a_fault_at_any_step_ends_in_exactly_one_of_each(
    session: Session,
    workspace: Workspace,
    session_factory: Factory,
    twenty: TwentyFake,
    crm: Destination,
    path: str,
    kind: str,
) -> None:
    planned(session, workspace)
    twenty.fail_next(f"POST /{path}", kind=kind, times=2)
    _until_done(session, session_factory, registry=clients(delivery_timeout=0.2))
    _once(twenty)
    assert states(session) == DONE


def test_429_pauses_the_destination_and_costs_no_try(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    twenty.fail_next(kind="429", retry_after="60")
    drained = drain(session_factory)
    assert not drained.more  # waits for the pause, so ringing again would be in vain
    row = rows(session)["person"]
    assert (row.state, row.tries, row.ambiguous) == (DeliveryState.PENDING, 0, False)
    planned(session, workspace)
    drain(session_factory)
    assert len(twenty.requests) == 1  # nobody calls it during the pause, the second lead neither
    session.execute(sa.update(Destination).values(paused_until=sa.func.now()))
    session.execute(sa.update(Delivery).values(due_at=sa.func.now()))
    session.commit()
    _until_done(session, session_factory)
    _once(twenty, 2)


def test_retry_after_of_a_503_is_honoured(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    plain = receiver.error
    receiver.error = lambda status: replace(plain(status), headers={"Retry-After": "90"})  # type: ignore[method-assign]
    receiver.fail_next(kind="503")
    drain(session_factory)
    session.expire_all()
    now, row = session.scalar(sa.select(sa.func.now())), rows(session)["lead.approved"]
    paused = session.scalar(sa.select(Destination.paused_until))
    assert now is not None
    assert paused is not None
    assert timedelta(seconds=80) < row.due_at - now <= timedelta(seconds=90)
    assert timedelta(seconds=80) < paused - now <= timedelta(seconds=90)
    assert row.tries == 1


def test_a_refusal_is_a_dead_letter_at_once_and_can_be_replayed(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    lead = planned(session, workspace)
    twenty.fail_next("POST /people", kind="422")
    drained = drain(session_factory)
    assert not drained.more
    stored = rows(session)
    assert states(session) == {"person": "dead", "task": "pending", "task_target": "pending"}
    assert stored["person"].last_error == "answered 422"
    assert outcomes(session, stored["person"]) == ["dead"]
    (event,) = events(session, lead.id, "DELIVERY_DEAD")
    assert event.details["error"] == "answered 422"
    deliver.replay(session, stored["person"], actor="Mai")
    session.commit()
    drain(session_factory)
    assert states(session) == DONE
    _once(twenty)


def test_after_the_last_try_it_is_a_dead_letter(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    twenty.fail_next("POST /people", kind="500", times=3)
    policy = replace(EAGER, max_tries=3)
    for _ in range(6):
        drain(session_factory, policy=policy)
        time.sleep(0.01)
    stored = rows(session)["person"]
    assert (stored.state, stored.tries) == (DeliveryState.DEAD, 3)
    assert outcomes(session, stored) == ["retry", "retry", "dead"]
    deliver.replay(session, stored, actor="Mai")
    session.commit()
    _until_done(session, session_factory, policy=policy)
    _once(twenty)


def test_a_receiver_that_cannot_tell_leaves_an_uncertain_letter(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    receiver.fail_next(kind="reset_after", times=2)
    for _ in range(4):
        drain(session_factory, policy=replace(EAGER, max_tries=2))
        time.sleep(0.01)
    assert states(session) == {"lead.approved": "uncertain"}
    deliver.replay(session, rows(session)["lead.approved"], actor="Mai")
    session.commit()
    drain(session_factory)
    assert states(session) == {"lead.approved": "delivered"}
    assert (len(receiver.deliveries), len(receiver.events)) == (3, 1)  # the receiver knows them by their one id


def test_410_switches_the_webhook_off(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    hook = webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    receiver.fail_next(kind="410")
    drain(session_factory)
    session.refresh(hook)
    assert hook.mode is DestinationMode.OFF
    assert states(session) == {"lead.approved": "dead"}
    assert events(session, None, "DESTINATION_GONE")


def test_a_user_s_url_that_points_inside_is_never_called(
    session: Session, workspace: Workspace, session_factory: Factory, receiver: WebhookReceiver
) -> None:
    webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    drain(session_factory, registry=clients(outbound_allow_cidrs=()))
    row = rows(session)["lead.approved"]
    assert row.state is DeliveryState.DEAD
    assert "not a public address" in (row.last_error or "")
    assert receiver.requests == []


def test_credentials_that_no_key_opens_hold_everything_up_until_the_key_is_back(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(30):
        planned(session, workspace)
    policy = replace(EAGER, breaker_seconds=0.1)
    rotated_away = Registry(Limits(), FieldCipher([Fernet.generate_key().decode()]).decrypt)
    for _ in range(3):  # the second and third time as a probe
        drain(session_factory, registry=rotated_away, policy=policy)
        until(lambda: _has_due(session_factory))
    assert all_states(session) == {"pending"}
    assert (len(twenty.requests), count(session, DeliveryAttempt)) == (0, 0)
    assert set(session.scalars(sa.select(Delivery.tries))) == {0}
    (alert,) = session.scalars(sa.select(Alert))
    assert (alert.kind, alert.times, alert.state) == (alerting.UNUSABLE, 1, AlertState.OPEN)
    assert alert.message.startswith("Twenty cannot be called: its credentials cannot be read")
    assert alert.link == f"/settings/destinations/{crm.id}"
    session.commit()
    _until_done(session, session_factory, policy=policy)
    _once(twenty, 30)
    session.refresh(crm)
    session.refresh(alert)
    assert (crm.problem, crm.open_until, crm.failures) == (None, None, 0)
    assert alert.state is AlertState.RESOLVED


def test_whoever_shows_a_certificate_that_is_not_good_is_waited_for_until_it_is(
    session: Session,
    workspace: Workspace,
    session_factory: Factory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context, authority = signed(tmp_path)
    policy = replace(EAGER, breaker_seconds=0.1)
    with WebhookReceiver(context=context) as receiver:
        hook = webhook_destination(session, workspace, receiver)
        for _ in range(30):
            planned(session, workspace)
        registry = clients()
        for _ in range(3):  # the second and third time as a probe
            drain(session_factory, registry=registry, policy=policy)
            until(lambda: _has_due(session_factory))
        assert all_states(session) == {"pending"}
        assert (count(session, DeliveryAttempt), set(session.scalars(sa.select(Delivery.tries)))) == (0, {0})
        (alert,) = session.scalars(sa.select(Alert))
        assert (alert.kind, alert.times) == (alerting.UNUSABLE, 1)
        assert alert.message.startswith(
            "Hook cannot be called: its certificate is not good: unable to get local issuer"
        )
        assert "Have the certificate put right there." in alert.message
        session.commit()
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        _until_done(session, session_factory, policy=policy)
        assert len(receiver.events) == 30
    session.refresh(hook)
    session.refresh(alert)
    assert (hook.problem, alert.state) == (None, AlertState.RESOLVED)


def test_the_alert_of_one_that_cannot_be_called_ends_when_it_is_switched_off(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Destination
) -> None:
    planned(session, workspace)
    drain(session_factory, registry=Registry(Limits(), FieldCipher([Fernet.generate_key().decode()]).decrypt))
    (alert,) = session.scalars(sa.select(Alert).where(Alert.kind == alerting.UNUSABLE))
    assert (alerting.settle(session), alert.state) == (0, AlertState.OPEN)
    crm.mode = DestinationMode.OFF
    session.flush()
    assert alerting.settle(session) == 1
    session.refresh(alert)
    assert alert.state is AlertState.RESOLVED


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"credentials": "enc:nonsense"}, "its credentials cannot be read"),
        ({"config": {}}, "“url” is missing"),
        ({"credentials": CIPHER.encrypt({"secret": "whsec_?"})}, "a value makes no sense"),
    ],
)
def test_a_destination_that_is_not_set_up_well_waits_until_an_admin_has_put_it_right(
    session: Session,
    workspace: Workspace,
    session_factory: Factory,
    receiver: WebhookReceiver,
    broken: dict[str, Any],
    said: str,
) -> None:
    hook = webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    for name, value in broken.items():
        setattr(hook, name, value)
    session.commit()
    drain(session_factory)
    row = rows(session)["lead.approved"]
    assert (row.state, row.tries, row.attempt) == (DeliveryState.PENDING, 0, 0)
    session.refresh(hook)
    assert said in (hook.problem or "")
    assert hook.problem == row.last_error
    assert [one.why for one in delivery_waits.of(session, row)] == [Wait.UNUSABLE]
    values = {"url": receiver.url, "secret": SECRET}
    wanted = Wanted(name="Hook", values=values, options={"per_minute": "600"})
    destinations.change(session, workspace.id, hook.id, wanted, cipher=CIPHER, actor="Mai")
    session.commit()
    drain(session_factory)
    assert states(session) == {"lead.approved": "delivered"}
    assert len(receiver.events) == 1


def test_watching_goes_on_once_the_destination_can_be_called(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake
) -> None:
    good = CIPHER.encrypt({"token": twenty.token})
    crm = twenty_destination(session, workspace, twenty, mode=DestinationMode.SHADOW, credentials="enc:nonsense")
    for _ in range(3):
        planned(session, workspace)
    policy = replace(EAGER, breaker_seconds=0.1)
    drain(session_factory, policy=policy)
    assert all_states(session) == {"pending"}
    crm.credentials = good
    session.commit()
    until(lambda: _has_due(session_factory))
    drain(session_factory, policy=policy)
    assert all_states(session) == {"shadowed"}


def test_a_bug_in_a_client_is_tried_again_without_telling_its_words(
    session: Session, workspace: Workspace, session_factory: Factory, crm: Destination, twenty: TwentyFake
) -> None:
    class Broken:
        def client_for(self, target: Target) -> Any:
            raise KeyError("a secret, perhaps")

    planned(session, workspace)
    drain(session_factory, registry=Broken(), policy=replace(EAGER, retry_delay=60, max_delay=60))
    row = rows(session)["person"]
    assert (row.state, row.last_error, row.ambiguous) == (DeliveryState.PENDING, "internal error: KeyError", True)
    session.execute(sa.update(Delivery).values(due_at=sa.func.now()))
    session.commit()
    drain(session_factory)
    _once(twenty)


def test_the_n8n_follow_up_goes_out_whatever_the_status(
    session: Session, workspace: Workspace, session_factory: Factory
) -> None:
    with WebhookReceiver(secret=None) as workflow:
        credentials = CIPHER.encrypt({"url": workflow.url})
        session.add(
            Destination(
                workspace_id=workspace.id, kind=DestinationKind.N8N, name="n8n", config={}, credentials=credentials,
                managed_by="environment",
            )
        )  # fmt: skip
        session.commit()
        lead = make_lead(
            session, workspace, door=Door.SOCIAL, priority=Priority.P1, status=LeadStatus.NEW_ESCALATE, author_id="77"
        )
        deliver.plan_follow_up(session, lead)
        session.commit()
        workflow.fail_next(kind="503", times=2)  # the try and its fast retry
        drain(session_factory)
        assert rows(session)["follow_up"].tries == 1
        _until_done(session, session_factory)
        (body,) = workflow.deliveries
    assert (body["lead_id"], body["tenant_id"], body["author_id"]) == (str(lead.id), str(workspace.id), "77")


def test_of_what_is_due_at_the_same_moment_a_lead_that_was_begun_is_finished_first(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(6):
        planned(session, workspace)
    session.execute(sa.update(Delivery).values(due_at=sa.func.now() - sa.text("interval '1 minute'")))
    session.commit()
    drain(session_factory, policy=replace(EAGER, threads=2))
    begun, most = 0, 0
    for call in twenty.calls("POST"):
        begun += {"/people": 1, "/taskTargets": -1}.get(call.path, 0)
        most = max(most, begun)
    assert most == 2


def test_a_claim_reads_the_index_in_its_order_and_stops(
    session: Session, workspace: Workspace, crm: Destination
) -> None:
    """Or else each claim reads all that is due: of 5,000 leads approved together it took 90 ms."""
    planned(session, workspace)
    first = session.scalars(sa.select(Delivery).where(Delivery.step == 0)).one()
    session.execute(sa.text("SET LOCAL session_replication_role = replica"))  # no lead is needed for this
    session.execute(
        sa.text(
            "INSERT INTO deliveries (id, workspace_id, lead_id, destination_id, action, step, due_at) "
            "SELECT gen_random_uuid(), :workspace, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, :there, "
            "action, step, :due FROM generate_series(1, 2000) AS n, "
            "(VALUES ('person', 0), ('task', 1), ('task_target', 2)) AS a (action, step)"
        ),
        {"workspace": workspace.id, "there": crm.id, "due": first.due_at},
    )
    session.execute(sa.text("ANALYZE deliveries"))
    plans: list[Any] = []

    @sa.event.listens_for(session.connection(), "before_cursor_execute", retval=True)
    def explained(_: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> tuple[str, Any]:
        if statement.startswith("WITH due") and not plans:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            plans.extend(cursor.fetchone()[0])
        return statement, parameters

    sending.claim_due(session, Holder(), limit=16, lease=30, destination_id=crm.id)
    (scan,) = [node for node in _nodes(plans[0]["Plan"]) if node.get("Index Name") == "ix_deliveries_due_there"]
    assert scan["Actual Rows"] == 16
    assert scan["Rows Removed by Filter"] < 100
    session.rollback()


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


# Workers that compete, die or come too late


def test_many_drains_at_once_send_everything_once(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(20):
        planned(session, workspace)
    twenty.latency = 0.005
    threads = [
        threading.Thread(target=drain, args=(session_factory,), kwargs={"policy": replace(EAGER, threads=2)})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drain(session_factory)
    assert all_states(session) == {"delivered"}
    _once(twenty, 20)
    assert count(session, DeliveryAttempt) == 60
    assert len(twenty.calls("POST")) == 60  # not even deduplicated by the other side


class _Killed(BaseException):
    """As kill -9: nothing after it runs, nothing is saved."""


class _Crashing:
    """Clients that die in the middle of ``action``, before or after the call took effect."""

    def __init__(self, action: str, *, after: bool) -> None:
        self._action, self._after, self._real = action, after, clients()

    def client_for(self, target: Target) -> Any:
        outer, real = self, self._real.client_for(target)

        class Client:
            reconciles = real.reconciles

            def send(self, request: DeliveryRequest) -> Receipt:
                if request.action != outer._action:
                    return real.send(request)
                if outer._after:
                    real.send(request)
                raise _Killed

            def reconcile(self, request: DeliveryRequest) -> Receipt | None:
                return real.reconcile(request)

        return Client()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("action", ["person", "task", "task_target"])
def test_a_worker_that_dies_in_the_middle_is_taken_over_at_once(
    session: Session,
    workspace: Workspace,
    session_factory: Factory,
    twenty: TwentyFake,
    crm: Destination,
    action: str,
    after: bool,
) -> None:
    planned(session, workspace)
    with pytest.raises(_Killed):
        drain(session_factory, registry=_Crashing(action, after=after), holder=new_holder(session, "deliveries-1"))
    assert states(session)[action] == "sending"
    drain(session_factory)  # somebody else: the lease has not run out
    assert states(session)[action] == "sending"
    drain(session_factory, holder=new_holder(session, "deliveries-1"))
    assert states(session) == DONE
    _once(twenty)
    last = "reconciled" if after and action != "person" else "delivered"
    assert outcomes(session, rows(session)[action]) == ["uncertain", last]


def test_a_lease_that_ran_out_is_taken_over_and_the_late_save_is_dropped(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    """A worker hangs (its renewals too) past its lease, is taken over, and then comes back with its result."""
    lead = planned(session, workspace)
    arrived, go_on = threading.Event(), threading.Event()
    real = clients()

    class Hanging:
        def client_for(self, target: Target) -> Any:
            inner = real.client_for(target)

            class Client:
                reconciles = True

                def send(self, request: DeliveryRequest) -> Receipt:
                    receipt = inner.send(request)
                    if request.action == "task":
                        arrived.set()
                        assert go_on.wait(10)
                    return receipt

                reconcile = inner.reconcile

            return Client()

    late = threading.Thread(target=drain, args=(session_factory,), kwargs={"registry": Hanging()})
    late.start()
    assert arrived.wait(10)
    session.execute(sa.update(Delivery).where(Delivery.action == "task").values(lease_until=sa.func.now()))
    session.commit()
    drain(session_factory)
    assert states(session) == DONE
    go_on.set()
    late.join()
    assert states(session) == DONE
    _once(twenty)
    assert rows(session)["task"].attempt == 2
    assert len(events(session, lead.id, "DELIVERY_SENT")) == 3
    assert outcomes(session, rows(session)["task"]) == ["uncertain", "reconciled"]


def test_leases_are_renewed_while_a_call_takes_long(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    twenty.fail_next("POST /tasks", kind="slow", seconds=2.5)
    policy = replace(EAGER, lease_seconds=0.9)
    slow = threading.Thread(target=drain, args=(session_factory,), kwargs={"policy": policy})
    slow.start()
    time.sleep(1.6)
    assert drain(session_factory, policy=policy).done == 0
    slow.join()
    assert states(session) == DONE
    assert len(twenty.calls("POST /tasks")) == 1


def test_a_worker_whose_place_was_taken_claims_nothing_more(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(30):
        planned(session, workspace)
    twenty.latency = 0.05
    old = new_holder(session, "deliveries-1")
    policy = replace(EAGER, lease_seconds=0.3, threads=1)
    raised: list[SlotTaken] = []

    def work() -> None:
        try:
            drain(session_factory, holder=old, policy=policy)
        except SlotTaken as taken:
            raised.append(taken)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    new_holder(session, "deliveries-1")
    thread.join(3)
    assert not thread.is_alive()
    assert len(twenty.people) < 30
    assert [taken.slot for taken in raised] == ["deliveries-1"]
    before = len(twenty.calls("POST /people"))
    with pytest.raises(SlotTaken):
        drain(session_factory, holder=old)
    assert len(twenty.calls("POST /people")) == before
    _until_done(session, session_factory)
    _once(twenty, 30)


# The destination's breaker


def test_the_breaker_opens_and_one_probe_closes_it(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(12):
        planned(session, workspace)
    twenty.fail_next("POST /people", kind="503", times=6)
    policy = replace(EAGER, breaker_failures=5, breaker_seconds=1.5, threads=1)
    drained = drain(session_factory, policy=policy)
    assert not drained.more
    assert len(twenty.requests) == 5
    session.refresh(crm)
    assert crm.failures == 5
    assert crm.open_until is not None
    assert drain(session_factory, policy=policy).done == 0  # open: nobody calls
    until(lambda: _has_due(session_factory))
    drain(session_factory, policy=policy)  # half-open: the probe fails
    assert len(twenty.requests) == 6
    assert drain(session_factory, policy=policy).done == 0
    until(lambda: _has_due(session_factory))
    _until_done(session, session_factory, policy=policy)
    session.refresh(crm)
    assert crm.failures == 0
    assert crm.open_until is None
    _once(twenty, 12)


def _has_due(session_factory: Factory) -> bool:
    with session_factory() as session:
        return deliver.has_due(session)


def test_only_one_of_many_workers_probes(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(6):
        planned(session, workspace)
    crm.failures, crm.open_until = 5, sa.func.now()
    session.commit()
    twenty.fail_next("POST", kind="503", times=100)
    policy = replace(EAGER, breaker_failures=5, breaker_seconds=30)
    threads = [threading.Thread(target=drain, args=(session_factory,), kwargs={"policy": policy}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(twenty.requests) == 1


def test_a_destination_that_fails_does_not_hold_up_another(
    session: Session,
    workspace: Workspace,
    session_factory: Factory,
    twenty: TwentyFake,
    receiver: WebhookReceiver,
    crm: Destination,
) -> None:
    webhook_destination(session, workspace, receiver)
    for _ in range(10):
        planned(session, workspace)
    twenty.fail_next("POST", kind="reset_before", times=1_000)
    drain(session_factory, policy=replace(EAGER, breaker_failures=5, breaker_seconds=30, retry_delay=5, max_delay=60))
    assert len(receiver.events) == 10
    assert len(twenty.requests) < 5 + EAGER.threads + 1


def test_a_drain_that_waits_for_a_dead_destination_goes_on_serving_the_others(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, receiver: WebhookReceiver
) -> None:
    dead = twenty_destination(session, workspace, twenty)
    planned(session, workspace)
    twenty.fail_next("POST", kind="hang")
    seconds = 0.2
    began = time.monotonic()
    over = {"registry": clients(delivery_timeout=60), "max_seconds": seconds}
    thread = threading.Thread(target=drain, args=(session_factory,), kwargs=over)
    thread.start()
    until(lambda: twenty.calls("POST") and time.monotonic() > began + seconds)  # its time is over, and the call hangs
    session.execute(sa.update(Destination).where(Destination.id == dead.id).values(rules={"min_score": 1_000}))
    webhook_destination(session, workspace, receiver)
    planned(session, workspace)
    until(lambda: len(receiver.events) == 1)
    assert thread.is_alive()
    twenty.close()
    thread.join(10)
    assert not thread.is_alive()


# Bounds


def test_a_drain_is_bounded_and_says_that_more_is_due(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    for _ in range(4):
        planned(session, workspace)
    drained = drain(session_factory, max_rows=5)
    assert (drained.done, drained.more) == (5, True)
    assert count(session, DeliveryAttempt) == 5
    stopped = deliver.process(session_factory, Holder(), clients(), max_rows=5, max_seconds=9, stop=lambda: True)
    assert (stopped.done, stopped.more) == (0, True)
    assert drain(session_factory, max_seconds=0).done == 0
    drained = drain(session_factory)
    assert (drained.done, drained.more) == (7, False)
    _once(twenty, 4)


def test_no_transaction_is_open_during_a_call(
    session: Session, workspace: Workspace, session_factory: Factory, twenty: TwentyFake, crm: Destination
) -> None:
    planned(session, workspace)
    session.close()
    seen: list[int] = []
    real = twenty.handle
    idle = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND (xact_start IS NOT NULL) AND backend_type = 'client backend'"
    )

    def handle(request: Any) -> Any:
        time.sleep(0.02)  # the claiming transaction's commit may still be under way when a call arrives
        with session_factory() as other:
            seen.append(int(other.scalar(idle) or 0))
        return real(request)

    twenty.handle = handle  # type: ignore[method-assign]
    drain(session_factory)
    assert seen == [0] * len(twenty.requests)
