"""Pages of deliveries: the list and its health, one delivery, dead letters and sending many of them again."""

import re
import time
import uuid

import pytest
import sqlalchemy as sa

from tests.factories import make_lead, make_workspace
from tests.fakes.twenty import TwentyFake
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import drain, planned, rows, twenty_destination, webhook_destination
from tests.views.conftest import fragment
from tests.views.test_pages import text_of
from webapp.leads import replays
from webapp.leads.claims import Holder
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode, ReplayState, Role
from webapp.models import AuditEvent, Delivery, DeliveryAttempt, Destination, Lead, ReplayRequest, Workspace
from webapp.views import delivery_health, payloads


@pytest.fixture
def manager(client, login):
    return login(client, Role.MANAGER, name="Mai")


@pytest.fixture
def hook(session, workspace):
    row = Destination(
        workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="Ops hook", config={"url": "https://a.example"}
    )
    session.add(row)
    session.commit()
    return row


@pytest.fixture
def dead(session, workspace, hook):
    """Three given up, and a fourth of which nobody knows."""
    return [
        make_delivery(session, hook, name=f"Lead {n}", error="It answered 400" if n < 2 else "It answered 500")
        for n in range(3)
    ] + [make_delivery(session, hook, name="Lead 3", error="timed out", state=DeliveryState.UNCERTAIN)]


def make_delivery(session, hook, *, name="Jane Roe", error=None, state=DeliveryState.DEAD):
    lead = make_lead(session, session.get_one(Workspace, hook.workspace_id), name=name)
    row = Delivery(
        workspace_id=hook.workspace_id, lead_id=lead.id, destination_id=hook.id, action="lead.approved", state=state,
        last_error=error, tries=8,
    )  # fmt: skip
    session.add(row)
    session.commit()
    return row


def count_in(html):
    return int(re.search(r'<b class="num">(\d+)</b>', html)[1])


def shown_in(html):
    return len(set(re.findall(r'href="/deliveries/([0-9a-f-]{36})"', html)))


def replay_all(session_factory):
    return replays.process(session_factory, Holder(), max_seconds=5, clock=time.monotonic)


class TestList:
    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("", 4), ("state=stuck", 4), ("state=dead", 3), ("state=uncertain&since=1h", 1), ("q=Lead+2", 1),
            ("action=lead.approved", 4), ("action=person", 0), ("since=2030-01-01", 0),
        ],
    )  # fmt: skip
    def test_the_count_is_the_list(self, client, manager, dead, query, count):
        html = client.get(f"/deliveries?{query}").text
        assert shown_in(html) == count
        assert (count_in(html) if count else 0) == count
        assert ("No delivery matches" in html) == (count == 0)

    def test_a_filter_by_destination_leaves_out_the_others(self, client, manager, session, workspace, dead, hook):
        other = Destination(workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="Other", config={})
        session.add(other)
        session.flush()
        assert shown_in(client.get(f"/deliveries?destination={hook.id}").text) == 4
        session.commit()
        assert shown_in(client.get(f"/deliveries?destination={other.id}").text) == 0

    def test_a_filter_that_is_not_understood_is_told(self, client, manager, dead):
        html = client.get("/deliveries?state=nowhere&action=dance&since=x&destination=y").text
        assert "This filter is not understood" in html
        assert all(f"“{name}”" in html for name in ("state", "action", "since", "destination"))

    def test_htmx_gets_the_list_alone(self, client, manager, dead):
        part = client.get("/deliveries?state=dead", headers=fragment("results")).text
        assert "<form" not in part and "Lead 1" in part and "health-chart" not in part


class TestHealth:
    def test_a_destination_without_a_call_is_not_yet_measured(self, client, manager, hook):
        page = client.get("/deliveries").text
        assert "Not yet measured" in page and "not tested" in page

    def test_a_name_without_a_letter_names_nobody(self, client, manager, session, dead):
        session.get(Lead, dead[0].lead_id).name = "-"
        session.commit()
        page = client.get("/deliveries").text
        assert ">-</a>" not in page and session.get(Lead, dead[0].lead_id).email in page

    def test_the_chart_and_its_table_say_the_same(self, client, manager, session, workspace, dead):
        for ms, outcome in ((40, "delivered"), (1_900, "retry"), (60, "delivered"), (5, "shadowed")):
            session.add(
                DeliveryAttempt(
                    workspace_id=workspace.id,
                    delivery_id=dead[0].id,
                    attempt=ms,
                    outcome=outcome,
                    ms=ms,
                    started_at=sa.func.now(),
                )
            )
        session.commit()
        html = client.get("/deliveries").text
        assert "not tested" not in html and "works" in html
        assert html.count('class="slow"') == html.count('class="failed"') == 1
        said = " ".join(text_of(html).split())
        assert "3 calls in a day, 1 failed" in said
        assert "3 1 60 ms 1.7 s" in said
        assert "style=" not in html

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"mode": DestinationMode.SHADOW}, "only watching"),
            ({"mode": DestinationMode.OFF}, "Nothing new is queued"),
            ({"paused_until": sa.text("now() + interval '1 minute'")}, "Paused, as it asked for"),
            ({"open_until": sa.text("now() + interval '1 minute'"), "failures": 5}, "does not answer"),
        ],
    )
    def test_its_state_is_said_in_words(self, client, manager, session, hook, values, words):
        session.execute(sa.update(Destination).values(**values))
        session.commit()
        assert words in text_of(client.get("/deliveries").text)


class TestDelivery:
    def test_it_says_what_was_sent_without_who_it_was(self, client, manager, session, session_factory, workspace):
        with WebhookReceiver() as receiver:
            webhook_destination(session, workspace, receiver)
            planned(session, workspace, name="Jane Roe", email="jane@acme.example", phone="+84912345678")
            drain(session_factory)
        (sent,) = session.scalars(sa.select(Delivery)).all()
        said = text_of(client.get(f"/deliveries/{sent.id}").text)
        assert "What was last sent" in said and "data › intent" in said and "[email]" in said
        assert "jane@acme.example" not in said.split("What was last sent")[1]
        assert "delivered" in said and " ms" in said

    def test_it_says_what_it_waits_for(self, client, manager, session, session_factory, workspace):
        with TwentyFake() as twenty:
            crm = twenty_destination(session, workspace, twenty)
            planned(session, workspace)
            task = rows(session)["task"]
            said = text_of(client.get(f"/deliveries/{task.id}").text)
            assert "What goes before it: person" in " ".join(said.split())
            session.execute(sa.update(Destination).values(open_until=sa.text("now() + interval '1 minute'")))
            session.execute(sa.update(Delivery).values(due_at=sa.text("now() + interval '1 minute'")))
            session.commit()
            said = " ".join(text_of(client.get(f"/deliveries/{task.id}").text).split())
            assert "The destination does not answer; one delivery is tried" in said and "can be taken back" in said
            session.execute(sa.update(Destination).where(Destination.id == crm.id).values(mode="off"))
            session.commit()
            assert "switched off" in client.get(f"/deliveries/{task.id}").text

    def test_a_dead_one_is_put_right_and_sent_again(self, client, manager, session, session_factory, workspace):
        with TwentyFake() as twenty:
            twenty_destination(session, workspace, twenty)
            planned(session, workspace, name="Ada Wrong", email="ada@wrong.example")
            twenty.fail_next("POST /people", kind="400")
            drain(session_factory)
            dead = rows(session)["person"]
            html = client.get(f"/deliveries/{dead.id}/edit").text
            assert "ada@wrong.example" in html and "stays as it is" in html and ">E-mail</label>" in html
            form = dict(re.findall(r'name="(to-[^"]+)"\s+value="([^"]*)"', html))
            answer = client.post(f"/deliveries/{dead.id}/edit", data=form | {"to-lead.email": "ada@right.example"})
            assert answer.status_code == 303
            drain(session_factory)
            (person,) = twenty.people
            assert person["emails"]["primaryEmail"] == "ada@right.example"
            session.expire_all()
            assert rows(session)["person"].edited == {"lead.email": "ada@right.example"}
            assert client.post(f"/deliveries/{dead.id}/edit", data=form).status_code == 409

    def test_letting_go_is_confirmed_and_takes_what_follows_along(self, client, manager, session, workspace):
        with TwentyFake() as twenty:
            twenty_destination(session, workspace, twenty)
            planned(session, workspace)
        session.execute(sa.update(Delivery).where(Delivery.action == "person").values(state=DeliveryState.DEAD))
        session.commit()
        person = rows(session)["person"]
        assert "Let go of this delivery?" in client.get(f"/deliveries/{person.id}/let-go").text
        assert "and 2 later steps there" in client.post(f"/deliveries/{person.id}/let-go", follow_redirects=True).text
        session.expire_all()
        assert {row.state for row in rows(session).values()} == {DeliveryState.CANCELLED}
        assert client.post(f"/deliveries/{person.id}/let-go").status_code == 409
        said = session.scalars(sa.select(AuditEvent.actor).where(AuditEvent.event_type == "DELIVERY_LET_GO")).all()
        assert said == ["Mai"]

    def test_letting_go_of_what_may_have_arrived_remembers_it(self, client, manager, session, dead):
        client.post(f"/deliveries/{dead[3].id}/let-go")
        session.refresh(dead[3])
        assert (dead[3].state, dead[3].ambiguous) == (DeliveryState.CANCELLED, True)

    def test_a_recorded_one_is_sent_or_discarded_by_choice(self, client, manager, session, hook):
        one, other = (make_delivery(session, hook, state=DeliveryState.SHADOWED) for _ in range(2))
        session.execute(sa.update(Destination).values(mode=DestinationMode.SHADOW))
        session.commit()
        assert "Send it" not in client.get(f"/deliveries/{one.id}").text
        assert client.post(f"/deliveries/{one.id}/recorded/send").status_code == 409
        session.execute(sa.update(Destination).values(mode=DestinationMode.LIVE))
        session.commit()
        assert "Send it" in client.get(f"/deliveries/{one.id}").text
        client.post(f"/deliveries/{one.id}/recorded/send")
        client.post(f"/deliveries/{other.id}/recorded/discard")
        session.expire_all()
        assert (one.state, other.state) == (DeliveryState.PENDING, DeliveryState.CANCELLED)

    def test_all_recorded_are_discarded_when_it_is_switched_on(self, client, login, session, hook):
        login(client, Role.ADMIN)
        one = make_delivery(session, hook, state=DeliveryState.SHADOWED)
        session.execute(sa.update(Destination).values(mode=DestinationMode.SHADOW))
        session.commit()
        assert "are discarded" in client.get(f"/settings/destinations/{hook.id}").text
        client.post(f"/settings/destinations/{hook.id}/live", data={"shadowed": "discard"})
        session.expire_all()
        assert (one.state, hook.mode) == (DeliveryState.CANCELLED, DestinationMode.LIVE)

    def test_a_viewer_sees_it_and_is_told_who_may(self, client, login, session, dead):
        login(client, Role.VIEWER)
        html = client.get(f"/deliveries/{dead[0].id}").text
        assert "A manager can send it again" in html and "/let-go" not in html and "/edit" not in html
        assert 'name="ids"' not in client.get("/deliveries/dead").text


class TestDeadLetters:
    @pytest.mark.parametrize(
        ("query", "count"),
        [("", 4), ("error=answered+400", 2), ("q=Lead+3", 1), ("since=1h", 4), ("action=person", 0)],
    )
    def test_the_count_is_the_list(self, client, manager, dead, query, count):
        html = client.get(f"/deliveries/dead?{query}").text
        assert html.count('name="ids"') == count
        assert (count_in(html) if count else 0) == count

    def test_the_glance_and_alerts_lead_here(self, client, manager, dead):
        assert 'href="/deliveries/dead"' in client.get("/queue").text

    def test_by_filter_they_are_sent_again_with_progress(self, client, manager, session, session_factory, dead):
        html = client.get("/deliveries/replays/new?error=answered+400").text
        assert "Failed with “answered 400”" in html
        answer = client.post("/deliveries/replays", data={"error": "answered 400", "dead": "2", "unsure": "0"})
        assert answer.status_code == 303
        page = client.get(answer.location).text
        assert 'hx-trigger="every 1s"' in page and "<progress" in page and "0 of 2" in text_of(page).replace("  ", " ")
        assert "being sent again" in client.get("/deliveries").text
        replay_all(session_factory)
        part = client.get(answer.location, headers=fragment("state")).text
        assert "hx-trigger" not in part and "All queued again" in part
        session.expire_all()
        assert [one.state.value for one in dead] == ["pending", "pending", "dead", "uncertain"]

    def test_the_ticked_ones_alone_are_sent_again(self, client, manager, session, session_factory, dead):
        ids = [str(dead[0].id), str(dead[3].id)]
        html = client.get("/deliveries/replays/new", query_string={"only": "ticked", "ids": ids}).text
        assert "2 that were ticked" in html and html.count('name="ids"') == 2
        data = {"ids": ids, "dead": "1", "unsure": "1"}
        assert client.post("/deliveries/replays", data=data | {"uncertain": "on"}).status_code == 303
        replay_all(session_factory)
        session.expire_all()
        assert [one.state.value for one in dead] == ["pending", "dead", "dead", "pending"]

    def test_nothing_ticked_is_told_instead_of_taken_for_all(self, client, manager, dead):
        html = client.get("/deliveries/replays/new?only=ticked").text
        assert "None was ticked" in html and 'name="dead"' not in html

    def test_what_may_have_arrived_is_left_alone_unless_asked_for(
        self, client, manager, session, session_factory, dead
    ):
        client.post("/deliveries/replays", data={"dead": "3", "unsure": "1"})
        replay_all(session_factory)
        session.refresh(dead[3])
        assert dead[3].state is DeliveryState.UNCERTAIN

    def test_a_list_that_has_changed_meanwhile_starts_nothing(self, client, manager, session, dead):
        answer = client.post("/deliveries/replays", data={"dead": "2", "unsure": "1"})
        assert answer.status_code == 409 and "has changed since you looked" in answer.text
        assert session.scalar(sa.select(sa.func.count()).select_from(ReplayRequest)) == 0

    def test_one_that_is_stopped_leaves_the_rest_given_up(
        self, client, manager, session, session_factory, dead, monkeypatch
    ):
        monkeypatch.setattr(replays, "_BATCH", 1)
        where = client.post("/deliveries/replays", data={"dead": "3", "unsure": "1"}).location
        turns = iter((False, True))
        replays.process(session_factory, Holder(), max_seconds=5, clock=time.monotonic, stop=lambda: next(turns, True))
        assert "Stopped" in client.post(f"{where}/cancel", follow_redirects=True).text
        assert not replay_all(session_factory).done
        session.expire_all()
        assert session.scalars(sa.select(ReplayRequest.state)).one() is ReplayState.CANCELLED
        assert [one.state.value for one in dead].count("pending") == 1
        assert "1 of 3" in text_of(client.get(where).text)
        assert client.post(f"{where}/cancel").status_code == 409

    def test_another_workspaces_letters_are_not_sent(self, client, manager, session, dead):
        other = make_workspace(session)
        session.execute(sa.update(Delivery).values(workspace_id=other.id))
        session.commit()
        data = {"ids": [str(dead[0].id)], "dead": "1", "unsure": "0"}
        assert client.post("/deliveries/replays", data=data).status_code == 409
        assert client.get(f"/deliveries/replays/{uuid.uuid4()}").status_code == 404


def test_a_payload_is_shown_without_secrets_and_long_texts_are_cut():
    found = dict(payloads.rows({"a": {"api_token": "x" * 30, "to": ["b@c.example", 3]}, "ok": True, "text": "y" * 900}))
    assert found["a › api_token"] == "hidden" and found["a › to › 1"] == "[email]" and found["a › to › 2"] == "3"
    assert found["ok"] == "yes" and found["text"].endswith("(900 characters)")
    assert len(payloads.rows(list(range(1, 900)))) == payloads.MOST_ROWS + 1


def test_figures_of_a_busy_day_are_kept_for_a_while(app, session, workspace, hook, monkeypatch):
    delivery = Delivery(
        workspace_id=workspace.id,
        lead_id=make_lead(session, workspace).id,
        destination_id=hook.id,
        action="lead.approved",
    )
    session.add(delivery)
    session.flush()

    def calls() -> int:
        one = DeliveryAttempt(
            workspace_id=workspace.id, delivery_id=delivery.id, attempt=1, outcome="delivered", started_at=sa.func.now()
        )
        session.add(one)
        session.commit()
        (card,) = delivery_health.cards(session, workspace.id)
        return sum(column.hour.calls for column in card.columns)

    assert [calls(), calls()] == [1, 2]
    monkeypatch.setattr(delivery_health, "BUSY", 2)
    assert [calls(), calls()] == [3, 3]
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + delivery_health.KEPT_SECONDS)
    assert calls() == 5
