"""``POST /enrich-lead`` in one process: its answer, its key, its repeats, and what it leaves behind."""

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from tests import factories
from tests.leads.test_gathering import Outside
from tests.waiting import until
from webapp.api.enrich import key_of, read
from webapp.api.waiting import MOST_OPTIONAL, Turns
from webapp.config import MOST_WAITING
from webapp.leads import run
from webapp.leads.claims import Holder
from webapp.leads.enrichment import Enriching
from webapp.leads.errors import Transient
from webapp.leads.judging import Judging, Mode, Policy
from webapp.leads.ports import ModelFailed, Opinion, Question, Usage
from webapp.leads.qualify_keys import LEASE_SECONDS
from webapp.leads.states import DestinationKind, Door, Intent, LeadStatus, Priority, RunStatus, RunTrigger
from webapp.leads.types import Fact
from webapp.models import AuditEvent, Delivery, Destination, IdempotencyKey, Lead, Run, Touch, Workspace

SURE = "Cho tôi báo giá gói Enterprise"
#: Below the default threshold of what goes out by itself.
UNSURE = "Hello, a colleague told me about you"
ADA = {"email": "Ada@Example.com ", "phone": "+1 (415) 555-0123", "name": "Ada Example", "message": SURE}
ADA_KEY = hashlib.sha256(b"ada@example.com14155550123").hexdigest()


class Stub:
    """A model that says what it is told to; ``asked`` keeps the questions."""

    def __init__(self, answer: Callable[[Question], Opinion]) -> None:
        self.answer, self.asked = answer, []

    def judge(self, question: Question) -> Opinion:
        self.asked.append(question.text)
        return self.answer(question)


def opinion(intent: Intent = Intent.DEMO_REQUEST, confidence: float = 0.9, **more: Any) -> Opinion:
    values = {"priority": Priority.P1, "reason": "", "industry": None, "suspicious": False, "usage": Usage("stub", 5)}
    return Opinion(intent=intent, confidence=confidence, **(values | more))


def fail(_: Question) -> Opinion:
    raise ModelFailed("the model's server answered 500")


Post = Callable[..., TestResponse]


@pytest.fixture
def post(app: Flask, headers: dict[str, str]) -> Post:
    def send(body: Any = None, **fields: Any) -> TestResponse:
        return app.test_client().post("/enrich-lead", json=fields or (ADA if body is None else body), headers=headers)

    return send


@pytest.fixture
def judged_by(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the mode that the door goes by, and how long it waits."""

    def choose(mode: Mode, *, available: bool = True, patience: float = 20.0) -> None:
        old = app.extensions["qualifying"]
        monkeypatch.setitem(
            app.extensions, "qualifying", replace(old, policy=Policy(mode, available), patience=patience)
        )

    return choose


@pytest.fixture
def working(session_factory: sessionmaker[Session]) -> Iterator[Callable[[Judging], None]]:
    """Starts a worker with a model: real drains in a thread."""
    stopping, threads = threading.Event(), []

    def work(judges: Judging) -> None:
        while not stopping.wait(0.02):
            run.process(session_factory, Holder(), judges=judges, stop=stopping.is_set)

    def start(judges: Judging) -> None:
        threads.append(threading.Thread(target=work, args=(judges,)))
        threads[-1].start()

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


def all_of(session: Session, model: Any) -> list[Any]:
    session.rollback()
    query = sa.select(model).execution_options(populate_existing=True)
    return list(session.scalars(query.order_by(model.created_at)))


class TestAnswer:
    def test_it_has_exactly_these_keys(self, post: Post) -> None:
        answer = post()
        assert answer.status_code == 200, answer.text
        assert list(answer.json) == ["qualified", "score", "reasons", "lead"]
        assert list(answer.json["lead"]) == ["name", "email", "phone", "budget", "intent", "urgency", "industry"]
        assert answer.json["qualified"] is True
        assert answer.json["score"] >= 60
        assert all(isinstance(reason, str) and reason for reason in answer.json["reasons"])
        assert answer.json["lead"] == {
            "name": "Ada Example", "email": "Ada@Example.com", "phone": "+1 (415) 555-0123", "budget": None,
            "intent": "inquiry_price", "urgency": "high", "industry": None,
        }  # fmt: skip
        assert "Idempotent-Replayed" not in answer.headers

    def test_what_is_no_lead_is_not_qualified(self, post: Post) -> None:
        answer = post(email="x@example.com", message="thanks a lot, great service!")
        assert (answer.json["qualified"], answer.json["lead"]["intent"]) == (False, "thanks")
        assert answer.json["lead"]["urgency"] == "low"

    def test_the_lead_and_its_run_are_recorded_like_any_other(
        self, post: Post, session: Session, session_factory: sessionmaker[Session]
    ) -> None:
        post(ADA | {"budget": "$12,500", "company": "Acme", "origin": "n8n", "extra": {"deep": [1]}})
        (lead,), (done,), (key,) = all_of(session, Lead), all_of(session, Run), all_of(session, IdempotencyKey)
        assert (lead.door, lead.source, lead.budget, lead.company) == (Door.ENRICH, "n8n", 12_500, "Acme")
        assert lead.settled_at is not None and lead.score is not None
        assert (done.status, done.trigger, done.attempt, done.error) == (RunStatus.SUCCESS, RunTrigger.INTAKE, 1, None)
        assert [stage["name"] for stage in done.stages] == ["enrich", "classify", "score", "route"]
        assert done.payload_json["extra"] == {"deep": [1]}
        assert done.idempotency_key == key.key == ADA_KEY
        assert (key.door, key.lead_id, key.lease_until) == (Door.ENRICH, lead.id, None)
        kinds = [event.event_type for event in all_of(session, AuditEvent)]
        assert kinds == ["LEAD_SIGNAL_CREATED", "RUN_SUCCEEDED"]
        assert run.process(session_factory, Holder()).done == 0

    def test_its_deliveries_are_planned(self, post: Post, session: Session, workspace: Workspace) -> None:
        session.add(
            Destination(
                workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="hook", config={"url": "http://x.example"}
            )
        )
        session.commit()
        post()
        post()
        assert len(all_of(session, Delivery)) == 1

    def test_an_empty_object_is_a_lead_all_the_same(self, post: Post, session: Session) -> None:
        answer = post({})
        assert answer.status_code == 200
        assert answer.json["qualified"] is False
        post({})
        assert len(all_of(session, Lead)) == 2
        assert all_of(session, IdempotencyKey) == []


class TestAliases:
    @pytest.mark.parametrize("name", ["email", "Email", "EMAIL", "e-mail", "mail", "email_address", "E-Mail"])
    def test_email(self, post: Post, name: str) -> None:
        assert post({name: "bo@example.com"}).json["lead"]["email"] == "bo@example.com"

    @pytest.mark.parametrize("name", ["phone", "Phone", "PHONE", "mobile", "tel", "phone_number"])
    def test_phone(self, post: Post, name: str) -> None:
        assert post({name: "+84912345678"}).json["lead"]["phone"] == "+84912345678"
        assert key_of({name: "+84 912 345 678"}) == hashlib.sha256(b"84912345678").hexdigest()

    @pytest.mark.parametrize(
        "given", [{"name": "Bo Li"}, {"full_name": "Bo Li"}, {"first_name": "Bo", "last_name": "Li"}]
    )
    def test_name(self, post: Post, given: dict[str, str]) -> None:
        assert post(given).json["lead"]["name"] == "Bo Li"

    @pytest.mark.parametrize("name", ["message", "note", "text", "comments", "body"])
    def test_message(self, post: Post, name: str) -> None:
        assert post({name: SURE}).json["lead"]["intent"] == "inquiry_price"

    @pytest.mark.parametrize("name", ["company", "company_name", "organization"])
    def test_company(self, name: str) -> None:
        assert read({name: "Acme"}, {}).company == "Acme"

    @pytest.mark.parametrize("name", ["source", "Source", "SOURCE", "origin", "channel"])
    def test_source(self, name: str) -> None:
        assert read({name: "ads"}, {}).source == "ads"
        assert read({name: ""}, {}).source == read({}, {}).source == "unknown"

    @pytest.mark.parametrize(
        ("given", "amount"),
        [(5000, 5000), (99.5, 99.5), ("12,500", 12_500), ("12.500 USD", 12_500), ("$20k", 20_000), ("1,5 triệu", 1.5e6),
         ("2 tỷ", 2e9), ("10k-20k", 10_000), ("0.125", 0.125), ("20 thousand", 20_000), ("3 people 500", 500),
         ("2 3k", 3_000), ("2026: 5k", 5_000), (10**400, None), ("a lot", None), (True, None), (None, None), ([5], None), (-3, None),
         ("-3", None), (1e300, None), ("9" * 400, None)],
    )  # fmt: skip
    def test_budget(self, given: Any, amount: float | None) -> None:
        assert read({"budget": given}, {}).budget == amount

    def test_the_first_alias_that_holds_something_counts(self) -> None:
        lead = read({"message": "  ", "note": "the note", "Email": None, "mail": "m@example.com", "name": ["x"]}, {})
        assert (lead.message, lead.email, lead.name) == ("the note", "m@example.com", None)
        assert read({"phone": 84912345678, "name": 7}, {}).phone == "84912345678"

    def test_a_number_is_read_by_the_country_that_is_named(
        self, client: FlaskClient, headers: dict[str, str], session: Session
    ) -> None:
        body = {"phone": "0912 345 678", "Country": "Vietnam", "message": "Please call me"}
        assert client.post("/enrich-lead", json=body, headers=headers).status_code == 200
        (lead,) = all_of(session, Lead)
        assert lead.phone_e164 == "+84912345678"
        assert lead.attributes == {"country": "Vietnam"}

    def test_neither_email_nor_phone_is_no_key(self) -> None:
        assert key_of({"name": "x"}) is key_of({"email": " ", "phone": "call me"}) is None
        assert key_of(ADA) == ADA_KEY


class TestRepeats:
    def test_without_email_and_phone_the_callers_own_key_counts(
        self, client: FlaskClient, headers: dict[str, str], session: Session
    ) -> None:
        def ask(key: str | None, body: dict[str, Any]) -> Any:
            more = {"Idempotency-Key": key} if key else {}
            return client.post("/enrich-lead", json=body, headers=headers | more)

        nobody = {"message": "What does it cost?"}
        first, again = ask("row-1", nobody), ask("row-1", nobody)
        assert (first.status_code, again.data, again.headers["Idempotent-Replayed"]) == (200, first.data, "true")
        assert "Idempotent-Replayed" not in ask("row-2", nobody).headers
        assert "Idempotent-Replayed" not in ask(None, nobody).headers
        assert len(all_of(session, Lead)) == 3
        assert "Idempotent-Replayed" not in ask("row-1", ADA).headers  # somebody: the person is the key
        assert ask("row-9", ADA).headers["Idempotent-Replayed"] == "true"

    def test_the_stored_answer_byte_for_byte(self, post: Post, session: Session) -> None:
        first = post()
        again = post(ADA | {"email": " ADA@example.COM", "phone": "14155550123", "budget": 9})
        assert again.status_code == 200
        assert again.data == first.data
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(all_of(session, Lead)) == len(all_of(session, Run)) == 1
        assert all_of(session, Touch) == []

    def test_another_workspaces_key_is_another_key(self, post: Post, client: FlaskClient, session: Session) -> None:
        post()
        other = factories.make_key(session, factories.make_workspace(session))
        answer = client.post("/enrich-lead", json=ADA, headers={"X-API-Key": other})
        assert "Idempotent-Replayed" not in answer.headers
        assert len(all_of(session, Lead)) == 2

    def test_a_key_past_its_days_begins_anew(self, post: Post, session: Session) -> None:
        post()
        session.execute(sa.update(IdempotencyKey).values(expires_at=sa.func.now() - sa.text("interval '1 s'")))
        session.commit()
        answer = post(ADA | {"message": "I want to book a demo"})
        assert "Idempotent-Replayed" not in answer.headers
        assert answer.json["lead"]["intent"] == "demo_request"
        assert len(all_of(session, Lead)) == 2

    def test_the_same_person_and_words_at_another_door_are_the_same_lead(
        self, post: Post, client: FlaskClient, headers: dict[str, str], session: Session
    ) -> None:
        client.post(
            "/leads/", json={"note": SURE, "email": "ada@example.com"},
            headers=headers | {"Idempotency-Key": str(uuid.uuid4())},
        )  # fmt: skip
        answer = post()
        assert answer.status_code == 200 and answer.json["lead"]["intent"] == "inquiry_price"
        (lead,) = all_of(session, Lead)
        assert lead.touches == 2
        assert [one.status for one in all_of(session, Run)] == [RunStatus.SUCCESS]

    def test_twenty_at_once(self, post: Post, session: Session) -> None:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: post(), range(20)))
        assert {answer.status_code for answer in answers} <= {200, 409}
        good = [answer for answer in answers if answer.status_code == 200]
        assert len({answer.data for answer in good}) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in good) == 1
        assert len(all_of(session, Lead)) == len(all_of(session, Run)) == 1


class TestChangedMessage:
    def test_it_is_answered_from_the_store_and_kept(
        self, post: Post, session: Session, session_factory: sessionmaker[Session]
    ) -> None:
        first = post()
        for _ in range(3):
            again = post(ADA | {"message": "Also: do you ship to Norway?"})
            assert again.data == first.data and again.headers["Idempotent-Replayed"] == "true"
        (lead,), (touch,) = all_of(session, Lead), all_of(session, Touch)
        assert (touch.lead_id, touch.message, touch.key) == (lead.id, "Also: do you ship to Norway?", ADA_KEY)
        assert touch.payload["name"] == "Ada Example"
        assert lead.touches == 2
        queued = all_of(session, Run)[-1]
        assert (queued.trigger, queued.status) == (RunTrigger.TOUCH, RunStatus.QUEUED)
        assert run.process(session_factory, Holder()).done == 1
        (lead,) = all_of(session, Lead)
        assert (lead.status, lead.intent) == (LeadStatus.NEW_AUTO, Intent.INQUIRY_PRICE)
        touched = [e for e in all_of(session, AuditEvent) if e.event_type == "LEAD_TOUCHED"]
        assert [e.details["intent"] for e in touched] == ["inquiry"]

    def test_what_outranks_brings_the_lead_up_for_review(
        self, post: Post, session: Session, session_factory: sessionmaker[Session]
    ) -> None:
        post()
        post(ADA | {"message": "This is a terrible service, I want a refund or I call my lawyer!"})
        run.process(session_factory, Holder())
        (lead,) = all_of(session, Lead)
        assert (lead.status, lead.intent, lead.priority) == (LeadStatus.NEW_ESCALATE, Intent.COMPLAINT, Priority.P0)
        assert lead.message == SURE and "later message" in lead.verdict["tags"]
        (event,) = [e for e in all_of(session, AuditEvent) if e.event_type == "LEAD_RAISED"]
        assert (event.details["intent"], event.details["decided"]) == ("complaint", False)
        # Another run of the lead's own words does not forget it.
        run.request_rerun(session, session.get_one(Lead, lead.id), requested_by="Ann")
        session.commit()
        run.process(session_factory, Holder())
        (lead,) = all_of(session, Lead)
        assert (lead.status, lead.intent) == (LeadStatus.NEW_ESCALATE, Intent.COMPLAINT)

    def test_the_leads_page_shows_what_was_written_and_what_came_of_it(
        self,
        post: Post,
        client: FlaskClient,
        session: Session,
        session_factory: sessionmaker[Session],
        login: Callable[..., Any],
    ) -> None:
        post()
        post(ADA | {"message": "Stop emailing me, you <crooks>"})
        run.process(session_factory, Holder())
        (lead,) = all_of(session, Lead)
        login(client)
        page = client.get(f"/queue/{lead.id}").text
        assert "Stop emailing me, you &lt;crooks&gt;" in page
        assert "They wrote again in other words, judged unsubscribe" in page
        assert "What they wrote later asks for more" in page and "up for review" in page

    def test_a_persons_decision_stands_and_the_trail_tells(
        self, post: Post, session: Session, session_factory: sessionmaker[Session]
    ) -> None:
        post()
        session.execute(sa.update(Lead).values(status=LeadStatus.APPROVED))
        session.commit()
        post(ADA | {"message": "Stop emailing me and delete my data"})
        run.process(session_factory, Holder())
        (lead,) = all_of(session, Lead)
        assert (lead.status, lead.intent) == (LeadStatus.APPROVED, Intent.INQUIRY_PRICE)
        (event,) = [e for e in all_of(session, AuditEvent) if e.event_type == "LEAD_RAISED"]
        assert event.details["decided"] is True

    def test_words_of_long_ago_are_no_news_either(
        self, post: Post, session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
    ) -> None:
        post()
        for n in range(250):
            post(ADA | {"message": f"And number {n}?"})
        assert len(all_of(session, Touch)) == 250
        again = post(ADA | {"message": " and NUMBER 0?"})
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(all_of(session, Touch)) == 250 and len(all_of(session, Run)) == 251
        assert all_of(session, Lead)[0].touches == 251

    def test_what_was_kept_before_is_not_loaded(self, post: Post, session: Session) -> None:
        post()
        for n in range(3):
            post(ADA | {"message": f"And number {n}?"})
        read: list[str] = []
        sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *args: read.append(args[2]))
        post(ADA | {"message": "And number 1?"})
        assert not [statement for statement in read if "touches.message" in statement]
        assert len(all_of(session, Touch)) == 3

    @pytest.mark.parametrize("message", ["", "   ", SURE.upper(), f" {SURE}  "])
    def test_the_same_words_and_none_are_no_news(self, post: Post, session: Session, message: str) -> None:
        post()
        post(ADA | {"message": message})
        assert all_of(session, Touch) == []


class TestOutside:
    def test_sources_are_asked_after_the_answer_and_the_crms_owner_gets_the_lead(
        self, post: Post, session: Session, session_factory: sessionmaker[Session], workspace: Workspace
    ) -> None:
        _, mai = (factories.make_user(session, workspace, takes_leads=True) for _ in range(2))
        hook = Destination(
            workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="h", config={"url": "http://x"}
        )
        session.add(hook)
        session.add(
            Destination(workspace_id=workspace.id, kind=DestinationKind.TWENTY, name="CRM", config={"url": "http://x"})
        )
        session.commit()
        body = ADA | {"email": "ada@acme-pumps.de"}
        answer = post(body)
        (lead,), (first, later) = all_of(session, Lead), sorted(all_of(session, Run), key=lambda row: row.created_at)
        assert (first.status, later.status) == (RunStatus.SUCCESS, RunStatus.QUEUED)
        enrich = first.stages[0]
        assert (enrich["status"], "CRM: asked after the answer" in enrich["error"]) == ("degraded", True)
        assert (lead.status, lead.assignee_id) == (LeadStatus.NEW_AUTO, None)
        waiting = {row.id: row.due_at for row in all_of(session, Delivery)}
        assert waiting and all(due > lead.settled_at for due in waiting.values())
        outside = Outside(crm=[Fact("crm_owner", mai.email, "", 0.95)])
        run.process(session_factory, Holder(), enriching=Enriching(outside))
        (lead,) = all_of(session, Lead)
        assert lead.assignee_id == mai.id
        assert outside.count("crm") == outside.count("home") == 1
        assert {row.id for row in all_of(session, Delivery)} == waiting.keys()
        again = post(body)
        assert (again.headers["Idempotent-Replayed"], again.data) == ("true", answer.data)
        assert len(all_of(session, Run)) == 2

    def test_without_sources_nothing_follows(self, post: Post, session: Session, workspace: Workspace) -> None:
        workspace.settings = {"flags": {"enableEnrichment": False}}
        session.commit()
        post(ADA | {"email": "ada@acme-pumps.de"})
        (done,) = all_of(session, Run)
        assert (done.status, done.degraded) == (RunStatus.SUCCESS, [])


class TestBadInput:
    def test_more_than_64_kib(self, post: Post, session: Session) -> None:
        assert post(message="x" * 65_600).status_code == 413
        assert all_of(session, Lead) == []

    def test_a_long_message_is_cut_and_kept_whole_in_the_payload(self, post: Post, session: Session) -> None:
        text = "price? " * 8_000
        assert post(message=text, email="e@example.com").status_code == 200
        (lead,), (done,) = all_of(session, Lead), all_of(session, Run)
        assert len(lead.message) == 20_000
        assert done.payload_json["message"] == text

    def test_oddities_are_no_errors(self, post: Post) -> None:
        odd = {
            "email": {"a": 1},
            "phone": [1],
            "name": True,
            "message": None,
            "budget": "∞",
            "": "",
            " ": 3,
            "é" * 300: 1,
        }
        assert post(odd).status_code == 200
        assert post(email="x" * 5_000, phone="9" * 5_000, name="n" * 5_000, message="hi").status_code == 200
        assert post(email="not an address", message=SURE).json["lead"]["email"] == "not an address"

    def test_a_lead_that_cannot_be_judged_at_once_is_kept(
        self, post: Post, session: Session, session_factory: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("webapp.leads.run_stages.score.qualified", lambda *_, **__: 1 / 0)
            answer = post()
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "5"
        (queued,) = all_of(session, Run)
        assert queued.status is RunStatus.QUEUED
        run.process(session_factory, Holder())
        assert post().status_code == 200
        assert len(all_of(session, Lead)) == len(all_of(session, Run)) == 1


class TestModel:
    def test_it_is_asked_by_a_worker_where_the_rules_are_unsure(
        self, post: Post, session: Session, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM)
        stub = Stub(lambda _: opinion(industry="health care"))
        working(Judging(Policy(Mode.RULES_THEN_LLM, True), stub))
        sure, unsure = post(), post(email="u@example.com", message=UNSURE)
        assert sure.json["lead"]["industry"] is None
        assert unsure.status_code == 200, unsure.text
        assert (unsure.json["lead"]["intent"], unsure.json["lead"]["industry"]) == ("demo_request", "healthcare")
        assert stub.asked == [UNSURE]
        lead = all_of(session, Lead)[-1]
        assert lead.verdict["judge"] == "rules+stub"
        classify = all_of(session, Run)[-1].stages[1]
        assert classify["output"]["model"] == {
            "intent": "demo_request", "confidence": 0.9, "model": "stub", "ms": 5, "calls": 1, "tokens_in": None,
            "tokens_out": None, "cost": None, "estimated": False,
        }  # fmt: skip
        assert post(email="u@example.com", message=UNSURE).headers["Idempotent-Replayed"] == "true"
        assert len(stub.asked) == 1

    def test_its_failure_falls_back_to_the_rules(
        self, post: Post, session: Session, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM)
        working(Judging(Policy(Mode.RULES_THEN_LLM, True), Stub(fail)))
        answer = post(email="u@example.com", message=UNSURE)
        assert answer.status_code == 200, answer.text
        (done,) = all_of(session, Run)
        assert done.status is RunStatus.SUCCESS
        assert (done.stages[1]["status"], done.stages[1]["error"]) == ("degraded", "the model's server answered 500")

    def test_without_a_worker_the_rules_answer_when_the_time_is_up(
        self, post: Post, session: Session, session_factory: sessionmaker[Session], judged_by: Callable[..., None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM, patience=0.3)
        answer = post(email="u@example.com", message=UNSURE)
        assert answer.status_code == 200, answer.text
        (done,) = all_of(session, Run)
        assert (done.status, done.stages[1]["error"]) == (RunStatus.SUCCESS, "no answer within 0.3 s")
        assert run.process(session_factory, Holder()).done == 0

    def test_a_worker_that_hangs_is_fenced_out(
        self, post: Post, session: Session, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM, patience=0.5)
        released = threading.Event()

        def slowly(_: Question) -> Opinion:
            released.wait(30)
            return opinion()

        stub = Stub(slowly)
        working(Judging(Policy(Mode.RULES_THEN_LLM, True), stub))
        answer = post(email="u@example.com", message=UNSURE)
        assert (answer.status_code, len(stub.asked)) == (200, 1)
        released.set()
        again = post(email="u@example.com", message=UNSURE)
        assert again.data == answer.data
        (done,) = all_of(session, Run)
        assert done.status is RunStatus.SUCCESS and done.stages[1]["status"] == "degraded"

    def test_twenty_at_once_ask_once(
        self, post: Post, session: Session, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM)
        released = threading.Event()

        def slowly(_: Question) -> Opinion:
            released.wait(30)
            return opinion()

        stub = Stub(slowly)
        working(Judging(Policy(Mode.RULES_THEN_LLM, True), stub))
        with ThreadPoolExecutor(20) as pool:
            waiting = [pool.submit(post, email="u@example.com", message=UNSURE) for _ in range(20)]
            until(lambda: sum(one.done() for one in waiting) == 19)
            released.set()
        answers = [one.result() for one in waiting]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(refused) == 19
        for answer in refused:
            assert (answer.status_code, answer.json["error"]["code"]) == (409, "in_progress")
            assert answer.headers["Retry-After"] == "5"
        assert len(stub.asked) == len(all_of(session, Lead)) == len(all_of(session, Run)) == 1

    def test_a_fifth_that_would_wait_is_told_to_come_again(
        self, app: Flask, post: Post, session: Session, judged_by: Callable[..., None]
    ) -> None:
        judged_by(Mode.RULES_THEN_LLM, patience=3.0)
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(post, email=f"u{n}@example.com", message=UNSURE) for n in range(4)]
            until(lambda: app.extensions["turns"].places == 0)
            until(lambda: len(all_of(session, Lead)) == 4)
            fifth = post(email="u5@example.com", message=UNSURE)
            assert (fifth.status_code, fifth.json["error"]["code"]) == (503, "unavailable")
            assert int(fifth.headers["Retry-After"]) >= 1
            assert post().status_code == 200  # needs no model
        assert [one.result().status_code for one in waiting] == [200] * 4
        assert len(all_of(session, Lead)) == 5
        assert app.extensions["turns"].places == 4


class TestModelRequired:
    def test_an_answer_by_the_model(
        self, post: Post, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.LLM)
        stub = Stub(lambda _: opinion(Intent.INQUIRY_PRICE))
        working(Judging(Policy(Mode.LLM, True), stub))
        assert post().status_code == 200
        assert stub.asked == [SURE]

    def test_its_failure_is_502_and_frees_the_key(
        self, post: Post, session: Session, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.LLM)
        stub = Stub(fail)
        working(Judging(Policy(Mode.LLM, True), stub))
        answer = post()
        assert (answer.status_code, answer.json["error"]["code"]) == (502, "upstream_failed")
        assert "answered 500" in answer.json["error"]["message"]
        (failed,) = all_of(session, Run)
        assert failed.status is RunStatus.FAILED and "answered 500" in failed.error
        assert all_of(session, IdempotencyKey) == []
        (lead,) = all_of(session, Lead)
        assert lead.status is LeadStatus.NEW_ESCALATE  # nobody has looked at it properly
        # Sent again it goes on with the same lead, which was not asked for twice.
        stub.answer = lambda _: opinion(Intent.INQUIRY_PRICE)
        good = post()
        assert good.status_code == 200 and "Idempotent-Replayed" not in good.headers
        (lead,) = all_of(session, Lead)
        assert (lead.touches, lead.status) == (1, LeadStatus.NEW_AUTO)
        assert [one.status for one in all_of(session, Run)] == [RunStatus.FAILED, RunStatus.SUCCESS]

    def test_no_worker_is_502(
        self, post: Post, session: Session, session_factory: sessionmaker[Session], judged_by: Callable[..., None]
    ) -> None:
        judged_by(Mode.LLM, patience=0.3)
        answer = post()
        assert (answer.status_code, answer.json["error"]["code"]) == (502, "upstream_failed")
        (failed,) = all_of(session, Run)
        assert failed.status is RunStatus.FAILED and "no answer within 0.3 s" in failed.error
        assert all_of(session, IdempotencyKey) == []
        assert run.process(session_factory, Holder()).done == 0

    def test_no_model_configured_is_502(
        self, post: Post, judged_by: Callable[..., None], working: Callable[[Judging], None]
    ) -> None:
        judged_by(Mode.LLM, available=False)
        working(Judging(Policy(Mode.LLM, False)))
        answer = post()
        assert answer.status_code == 502 and "no model is configured" in answer.json["error"]["message"]

    def test_a_lead_of_another_door_that_the_rules_have_judged_is_judged_anew(
        self,
        post: Post,
        session: Session,
        session_factory: sessionmaker[Session],
        workspace: Workspace,
        judged_by: Callable[..., None],
        working: Callable[[Judging], None],
    ) -> None:
        factories.make_lead(session, workspace, SURE, email="ada@example.com")
        run.process(session_factory, Holder())
        judged_by(Mode.LLM)
        stub = Stub(fail)
        working(Judging(Policy(Mode.LLM, True), stub))
        refused = post()
        assert (refused.status_code, refused.json["error"]["code"]) == (502, "upstream_failed")
        assert "answered 500" in refused.json["error"]["message"]
        assert [key.door for key in all_of(session, IdempotencyKey)] == [Door.TRIAGE]  # not ours
        (lead,) = all_of(session, Lead)
        assert (lead.status, lead.verdict["judge"]) == (LeadStatus.NEW_AUTO, "rules")  # what stood stands
        assert [one.status for one in all_of(session, Run)] == [RunStatus.SUCCESS, RunStatus.FAILED]
        stub.answer = lambda _: opinion(Intent.INQUIRY_PRICE)
        answer = post()
        assert answer.status_code == 200, answer.text
        (lead,) = all_of(session, Lead)
        assert (lead.touches, lead.verdict["judge"]) == (2, "rules+stub")
        assert len(stub.asked) == 2
        # From now on it has been judged with a model, whoever asks.
        assert post(ADA | {"phone": None}).status_code == 200
        assert len(stub.asked) == 2 and len(all_of(session, Run)) == 3

    def test_a_lead_of_another_door_that_waits_for_its_run_is_asked_about(
        self,
        post: Post,
        session: Session,
        workspace: Workspace,
        judged_by: Callable[..., None],
        working: Callable[[Judging], None],
    ) -> None:
        factories.make_lead(session, workspace, SURE, email="ada@example.com")
        judged_by(Mode.LLM)
        stub = Stub(fail)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(post)
            until(lambda: [one.model_required for one in all_of(session, Run)] == [True])
            working(Judging(Policy(Mode.LLM, True), stub))
            assert waiting.result().status_code == 502
        assert [one.status for one in all_of(session, Run)] == [RunStatus.FAILED]

    def test_a_run_that_was_under_way_before_is_no_excuse(
        self,
        post: Post,
        session: Session,
        workspace: Workspace,
        judged_by: Callable[..., None],
        working: Callable[[Judging], None],
    ) -> None:
        """The worker does not know that somebody waits for the model by now, and makes do with the rules."""
        factories.make_lead(session, workspace, SURE, email="ada@example.com")
        judged_by(Mode.LLM)
        released = threading.Event()

        def slowly(question: Question) -> Opinion:
            released.wait(30)
            return fail(question)

        stub = Stub(slowly)
        working(Judging(Policy(Mode.LLM, True), stub))
        until(lambda: stub.asked)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(post)
            until(lambda: [one.model_required for one in all_of(session, Run)] == [True])
            released.set()
            answer = waiting.result()
        assert answer.status_code == 502 and "answered 500" in answer.json["error"]["message"]
        assert [one.status for one in all_of(session, Run)] == [RunStatus.SUCCESS]
        assert [key.door for key in all_of(session, IdempotencyKey)] == [Door.TRIAGE]  # not ours

    def test_what_a_person_has_decided_needs_no_model(
        self,
        post: Post,
        session: Session,
        session_factory: sessionmaker[Session],
        workspace: Workspace,
        judged_by: Callable[..., None],
    ) -> None:
        lead = factories.make_lead(session, workspace, SURE, email="ada@example.com")
        run.process(session_factory, Holder())
        session.execute(sa.update(Lead).where(Lead.id == lead.id).values(status=LeadStatus.APPROVED))
        session.commit()
        judged_by(Mode.LLM, patience=0.3)
        assert post().status_code == 200
        assert len(all_of(session, Run)) == 1

    def test_the_leads_own_words_tell_whether_to_ask(
        self, post: Post, session: Session, workspace: Workspace, judged_by: Callable[..., None]
    ) -> None:
        """A request that died has left a lead; the next one under its key has no words of its own."""
        lead = factories.make_lead(session, workspace, SURE, email="ada@example.com", door=Door.ENRICH)
        session.execute(
            sa.insert(IdempotencyKey).values(
                workspace_id=workspace.id, door=Door.ENRICH, key=ADA_KEY, request_hash="", lead_id=lead.id,
                expires_at=sa.func.now() + sa.text("interval '1 day'"),
            )
        )  # fmt: skip
        session.commit()
        judged_by(Mode.LLM, patience=0.3)
        assert post(ADA | {"message": ""}).status_code == 502
        assert [one.status for one in all_of(session, Run)] == [RunStatus.FAILED]

    def test_at_other_doors_the_lead_waits_for_a_person(
        self, session: Session, session_factory: sessionmaker[Session], workspace: Workspace
    ) -> None:
        lead = factories.make_lead(session, workspace, SURE)
        run.process(session_factory, Holder(), judges=Judging(Policy(Mode.LLM, True), Stub(fail)))
        session.rollback()
        lead = session.get_one(Lead, lead.id, populate_existing=True)
        assert (lead.status, lead.confidence) == (LeadStatus.NEW_ESCALATE, 0.69)
        (done,) = all_of(session, Run)
        assert (done.status, done.stages[1]["status"]) == (RunStatus.SUCCESS, "degraded")


class TestWhichRun:
    def add_run(self, session: Session, lead: Lead, trigger: RunTrigger) -> Run:
        added = Run(workspace_id=lead.workspace_id, lead_id=lead.id, source="x", trigger=trigger)
        session.add(added)
        session.commit()
        return added

    def test_the_oldest_that_looks_at_the_leads_own_words_and_no_other(
        self, post: Post, session: Session, workspace: Workspace
    ) -> None:
        lead = factories.make_lead(session, workspace, SURE, email="ada@example.com")
        session.execute(sa.update(Run).values(trigger=RunTrigger.TOUCH, rank=2))
        session.commit()
        self.add_run(session, lead, RunTrigger.RERUN)
        self.add_run(session, lead, RunTrigger.RERUN)
        assert post().status_code == 200
        told = [(one.trigger, one.status, one.idempotency_key == ADA_KEY, one.rank) for one in all_of(session, Run)]
        assert told == [
            (RunTrigger.TOUCH, RunStatus.QUEUED, False, 2),
            (RunTrigger.RERUN, RunStatus.SUCCESS, True, 0),
            (RunTrigger.RERUN, RunStatus.QUEUED, False, 2),
        ]

    def test_a_later_messages_run_does_not_do(self, post: Post, session: Session, workspace: Workspace) -> None:
        factories.make_lead(session, workspace, SURE, email="ada@example.com")
        session.execute(sa.update(Run).values(trigger=RunTrigger.TOUCH))
        session.commit()
        assert post().status_code == 200
        told = [(one.trigger, one.status) for one in all_of(session, Run)]
        assert told == [(RunTrigger.TOUCH, RunStatus.QUEUED), (RunTrigger.RERUN, RunStatus.SUCCESS)]


class TestHolder:
    def test_one_that_died_is_taken_over_when_its_lease_ends(
        self, post: Post, session: Session, session_factory: sessionmaker[Session], workspace: Workspace
    ) -> None:
        lead = factories.make_lead(session, workspace, SURE, email="ada@example.com", door=Door.ENRICH)
        session.execute(
            sa.insert(IdempotencyKey).values(
                workspace_id=workspace.id, door=Door.ENRICH, key=ADA_KEY, request_hash="", lead_id=lead.id,
                lease_until=sa.func.now() + sa.text(f"interval '{LEASE_SECONDS} s'"),
                expires_at=sa.func.now() + sa.text("interval '1 day'"),
            )
        )  # fmt: skip
        session.commit()
        held = post()
        assert (held.status_code, held.json["error"]["code"], held.headers["Retry-After"]) == (409, "in_progress", "5")
        began = time.monotonic()
        until(lambda: post().status_code == 200)
        assert time.monotonic() - began > 1  # not before
        (lead,) = all_of(session, Lead)
        assert lead.touches == 1 and lead.settled_at is not None

    def test_a_different_message_at_the_take_over_is_kept(
        self, post: Post, session: Session, workspace: Workspace
    ) -> None:
        lead = factories.make_lead(session, workspace, SURE, email="ada@example.com", door=Door.ENRICH)
        session.execute(
            sa.insert(IdempotencyKey).values(
                workspace_id=workspace.id, door=Door.ENRICH, key=ADA_KEY, request_hash="", lead_id=lead.id,
                expires_at=sa.func.now() + sa.text("interval '1 day'"),
            )
        )  # fmt: skip
        session.commit()
        assert post(ADA | {"message": "I want a demo"}).json["lead"]["intent"] == "inquiry_price"
        assert [touch.message for touch in all_of(session, Touch)] == ["I want a demo"]


class TestTurns:
    def test_who_waits_lends_the_turn(self) -> None:
        entered, released = threading.Event(), threading.Event()

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            if environ["waits"]:
                with turns.lent():
                    entered.set()
                    released.wait(30)
            return [b"done"]

        turns = Turns(app, 1)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(turns, {"waits": True}, None)
            assert entered.wait(10)
            assert turns({"waits": False}, None) == [b"done"]  # would hang without
            released.set()
            assert waiting.result(10) == [b"done"]

    def test_who_can_do_without_leaves_places_to_those_who_cannot(self) -> None:
        turns = Turns(lambda *_: [b""], 1)
        with ExitStack() as taken:
            for _ in range(MOST_OPTIONAL):
                taken.enter_context(turns.place(optional=True))
            with pytest.raises(Transient), turns.place(optional=True):
                pass
            for _ in range(MOST_WAITING - MOST_OPTIONAL):
                turns.require_place()
                taken.enter_context(turns.place())
            with pytest.raises(Transient):
                turns.require_place()
        with turns.place(optional=True):
            assert turns.places == MOST_WAITING - 1
