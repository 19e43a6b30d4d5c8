"""``POST /leads`` and ``GET /leads/search``: one lead per person, nothing lost, found by parts of words."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests import factories
from tests.api.test_bad_input import BODIES, stored
from webapp.leads import run
from webapp.leads.claims import Holder
from webapp.leads.states import Door, Intent, LeadStatus
from webapp.leads.textnorm import fold_search
from webapp.models import AuditEvent, Lead, Person, Run, Touch, Workspace
from webapp.security.fields import is_sealed

ADA = {
    "lead_id": "crm-1", "first_name": "Ada", "last_name": "Ánh", "email": "Ada@Example.com", "phone": "+84 912 345 670",
    "address_line1": "1 Đường Láng", "address_line2": "Tầng 2", "city": "Hà Nội", "state_province": "HN",
    "postal_code": "100000", "country": "Vietnam", "country_code": "VN", "vehicle_type": "truck",
    "date_of_birth": "1985-06-30", "current_credit": "good", "monthly_salary_min": 1500, "monthly_salary_max": 2500.5,
    "employment_status": "employed", "job_title": "Buyer", "company_name": "Acme", "employment_length": "3 years",
    "length_at_company": "2 years", "length_at_home_address": "9 years", "utm_source": "partner", "consent": True,
}  # fmt: skip
SENSITIVE = {"date_of_birth", "current_credit", "monthly_salary_min", "monthly_salary_max"}

Post = Callable[..., dict[str, Any]]


@pytest.fixture
def post(client: FlaskClient, headers: dict[str, str]) -> Post:
    def do(**fields: Any) -> dict[str, Any]:
        answer = client.post("/leads", json={"lead_id": uuid.uuid4().hex, **fields}, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json)

    return do


def the_lead(session: Session, **where: Any) -> Lead:
    session.rollback()
    return session.scalars(sa.select(Lead).filter_by(**where).execution_options(populate_existing=True)).one()


def test_a_lead_is_created_with_all_its_fields(
    client: FlaskClient, headers: dict[str, str], post: Post, session: Session
) -> None:
    assert post(**ADA) == {"status": "created", "lead_id": "crm-1"}
    lead = the_lead(session)
    assert (lead.door, lead.source, lead.external_id) == (Door.CRM, "crm", "crm-1")
    assert (lead.name, lead.email, lead.phone_e164, lead.company) == ("Ada Ánh", ADA["email"], "+84912345670", "Acme")
    assert lead.email_normalized == "ada@example.com"
    assert lead.attribution == {"utm_source": "partner"} and lead.consent == "yes"
    # What a lead without words is held to be (docs/api.md says so).
    assert (lead.message, lead.intent, lead.priority.value) == ("", Intent.CONTACT_REQUEST, "P1")
    plain = {name: value for name, value in lead.attributes.items() if name not in SENSITIVE}
    assert plain == {name: ADA[name] for name in plain} and len(plain) == 15
    payload = session.scalars(sa.select(Run.payload_json)).one()
    for name in SENSITIVE:
        assert is_sealed(lead.attributes[name]) and is_sealed(payload[name])
    cipher = client.application.extensions["cipher"]
    assert {name: cipher.decrypt(lead.attributes[name]) for name in SENSITIVE} == {
        name: ADA[name] for name in SENSITIVE
    }
    shown = client.get("/leads/crm-1", headers=headers).json
    assert (shown["lead_id"], shown["crm_synced"], shown["note"]) == ("crm-1", False, "")
    assert client.get(f"/leads/{lead.id}", headers=headers).json == shown
    assert client.get("/leads", headers=headers).json == [
        {"lead_id": "crm-1", "email": ADA["email"], "crm_synced": False}
    ]


def test_its_run_goes_through(post: Post, session: Session, session_factory: sessionmaker[Session]) -> None:
    post(lead_id="bare")
    post(lead_id="reachable", email="bo@acme.example")
    assert run.process(session_factory, Holder()).done == 2
    bare, reachable = the_lead(session, external_id="bare"), the_lead(session, external_id="reachable")
    assert bare.settled_at is not None and bare.intent is Intent.UNKNOWN
    assert (reachable.intent, reachable.status) == (Intent.CONTACT_REQUEST, LeadStatus.NEW_DRAFT)
    assert reachable.settled_at is not None and reachable.qualified is not None


@pytest.mark.parametrize(
    ("again", "why"),
    [
        ({"lead_id": "other", "email": " ADA@example.COM "}, "e-mail"),
        ({"lead_id": "other", "phone": "0912-345.670", "country_code": "VN"}, "phone"),
        ({"lead_id": "other", "email": "new@example.com", "phone": "+84912345670"}, "phone of another e-mail"),
        ({"lead_id": "crm-1"}, "business id"),
        ({"lead_id": "crm-1", "email": "else@example.com", "phone": "+1 415 555 2671"}, "business id alone"),
    ],
)
def test_who_is_here_already_is_existing_and_what_was_sent_is_kept(
    post: Post, session: Session, client: FlaskClient, again: dict[str, Any], why: str
) -> None:
    post(**ADA)
    more = again | {"current_credit": "bad", "employment_length": "4 years", "company_name": "Globex"}
    assert post(**more) == {"status": "existing", "lead_id": "crm-1"}
    lead = the_lead(session)
    assert lead.touches == 2 and lead.company == "Acme"
    touch = session.scalars(sa.select(Touch)).one()
    assert (touch.lead_id, touch.door) == (lead.id, Door.CRM)
    assert is_sealed(touch.payload["current_credit"])
    assert client.application.extensions["cipher"].decrypt(touch.payload["current_credit"]) == "bad"
    assert touch.payload["employment_length"] == "4 years"
    (event,) = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "LEAD_TOUCHED"))
    assert event.lead_id == lead.id and {"company", "employment_length"} <= set(event.details["new"])
    assert "bad" not in str(event.details)
    assert session.scalar(sa.select(sa.func.count()).select_from(Run)) == 1


def test_the_email_is_preferred_to_the_phone_and_the_phone_to_the_id(post: Post) -> None:
    post(lead_id="by-mail", email="a@example.com")
    post(lead_id="by-phone", phone="+14155552671")
    post(lead_id="by-id")
    both = {"lead_id": "by-id", "phone": "+14155552671"}
    assert post(**both, email="A@example.com")["lead_id"] == "by-mail"
    assert post(**both)["lead_id"] == "by-phone"
    assert post(**both, email="nobody@example.com")["lead_id"] == "by-phone"
    assert post(lead_id="by-id")["lead_id"] == "by-id"


def test_a_lead_of_another_door_is_here_too_and_goes_by_its_uuid(
    post: Post, session: Session, workspace: Workspace
) -> None:
    lead = factories.make_lead(session, workspace, email="bo@example.com", phone=None, name=None)
    assert post(email="bo@example.com", full_name="Bo Lee", phone="+14155552671") == {
        "status": "existing",
        "lead_id": str(lead.id),
    }
    person = session.scalars(sa.select(Person).execution_options(populate_existing=True)).one()
    assert (person.name, person.phone) == ("Bo Lee", "+14155552671")  # what was not known is filled in
    assert post(email="bo@example.com", full_name="Robert")["status"] == "existing"
    session.refresh(person)
    assert person.name == "Bo Lee"


def test_look_alikes_are_searched_anew_when_more_is_known_of_the_person(
    post: Post, session: Session, workspace: Workspace
) -> None:
    factories.make_lead(session, workspace, email="bo@example.com", name="Bo Lee", phone=None)

    def looked_at(**fields: Any) -> bool:
        """Looked at, then sent again: is it still?"""
        session.execute(sa.update(Person).values(looked_at=sa.func.now()))
        session.commit()
        post(email="bo@example.com", **fields)
        session.rollback()
        return session.scalars(sa.select(Person.looked_at)).one() is not None

    assert looked_at(full_name="Robert Lee")
    assert not looked_at(phone="+14155552671")
    assert not looked_at(company_name="Acme")
    assert looked_at(company_name="Globex", phone="+14155552672")


def test_consent_is_the_newest_and_attribution_the_first(post: Post, session: Session) -> None:
    post(**ADA, consent_at="2026-01-02T00:00:00Z")
    post(email=ADA["email"], utm_source="other", gclid="g-1")
    lead = the_lead(session)
    assert (lead.consent, str(lead.consent_at)[:10]) == ("yes", "2026-01-02")
    assert lead.attribution == {"utm_source": "partner", "gclid": "g-1"}
    post(email=ADA["email"], consent=False)
    post(email=ADA["email"], consent=False, consent_at="2026-03-04T00:00:00Z")
    lead = the_lead(session)
    assert (lead.consent, str(lead.consent_at)[:10], lead.touches) == ("no", "2026-03-04", 4)
    query = sa.select(AuditEvent).where(AuditEvent.event_type == "LEAD_TOUCHED").order_by(AuditEvent.id)
    assert [event.details.get("consent") for event in session.scalars(query)] == [None, "no", None]


def test_two_people_stay_two(post: Post, session: Session, workspace: Workspace) -> None:
    assert post(email="a@example.com")["status"] == "created"
    assert post(email="b@example.com")["status"] == "created"
    assert post()["status"] == "created" and post()["status"] == "created"  # nobody in particular, twice
    assert post(phone="+14155552671")["status"] == "created"
    assert post(phone="+1415555267")["status"] == "created"  # a part of a number is another number
    other = factories.make_workspace(session, "other")
    factories.make_lead(session, other, email="c@example.com")
    assert post(email="c@example.com")["status"] == "created"


def test_twenty_identical_posts_at_once_make_one_lead(app: Flask, headers: dict[str, str], session: Session) -> None:
    barrier = threading.Barrier(20)

    def one(_: int) -> dict[str, Any]:
        barrier.wait()
        answer = app.test_client().post("/leads", json=ADA, headers=headers)
        return dict(answer.json) | {"code": answer.status_code}

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    assert {answer["code"] for answer in answers} == {200}, answers
    assert sorted(answer["status"] for answer in answers) == ["created"] + ["existing"] * 19
    assert {answer["lead_id"] for answer in answers} == {"crm-1"}
    assert the_lead(session).touches == 20
    assert session.scalar(sa.select(sa.func.count()).select_from(Touch)) == 19


def test_posts_that_share_only_one_key_at_once_make_one_lead_too(
    app: Flask, headers: dict[str, str], session: Session
) -> None:
    keys = [
        {"email": "x@example.com", "phone": "+14155552671"},
        {"email": "x@example.com"},
        {"phone": "+14155552671"},
        {"phone": "+14155552671", "email": "X@example.com"},
    ] * 5
    barrier = threading.Barrier(len(keys))

    def one(fields: dict[str, str]) -> Any:
        barrier.wait()
        return (
            app.test_client().post("/leads", json={"lead_id": uuid.uuid4().hex, **fields}, headers=headers).status_code
        )

    with ThreadPoolExecutor(len(keys)) as pool:
        assert set(pool.map(one, keys)) == {200}
    found = list(session.scalars(sa.select(Lead)))
    # One that has the phone alone may come first; the e-mail then finds it by the phone, or is the first itself.
    assert len(found) <= 2 and sum(lead.touches for lead in found) == len(keys)
    assert len([lead for lead in found if lead.phone_e164]) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"lead_id": None}, "lead_id"),
        ({"lead_id": ""}, "lead_id"),
        ({"lead_id": "   "}, "lead_id"),
        ({"lead_id": 7}, "lead_id"),
        ({"lead_id": "x" * 129}, "lead_id"),
        ({"email": "nobody"}, "email"),
        ({"email": 1}, "email"),
        ({"phone": 84912345670}, "phone"),
        ({"phone": "1" * 101}, "phone"),
        ({"full_name": ["Ada"]}, "full_name"),
        ({"city": {"x": 1}}, "city"),
        ({"city": "x" * 201}, "city"),
        ({"date_of_birth": "30.06.1985"}, "date_of_birth"),
        ({"date_of_birth": "1985-02-30"}, "date_of_birth"),
        ({"date_of_birth": "1985-W01-1"}, "date_of_birth"),
        ({"date_of_birth": 19850630}, "date_of_birth"),
        ({"date_of_birth": "2999-01-01"}, "date_of_birth"),
        ({"monthly_salary_min": "1500"}, "monthly_salary_min"),
        ({"monthly_salary_min": True}, "monthly_salary_min"),
        ({"monthly_salary_max": -1}, "monthly_salary_max"),
        ({"monthly_salary_min": 2, "monthly_salary_max": 1}, "body"),
    ],
)
def test_what_does_not_fit_is_named(
    client: FlaskClient, headers: dict[str, str], session: Session, wrong: dict[str, Any], field: str
) -> None:
    answer = client.post("/leads", json=ADA | wrong, headers=headers)
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json["error"]["details"]] == [field]
    assert stored(session) == 0


def test_all_that_does_not_fit_is_named_at_once(client: FlaskClient, headers: dict[str, str]) -> None:
    error = client.post("/leads", json={"email": "x", "city": 1}, headers=headers).json["error"]
    assert {one["field"] for one in error["details"]} == {"lead_id", "email", "city"}
    missing = client.post("/leads", json={}, headers=headers).json["error"]
    assert missing["code"] == "missing_param"


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused_with_the_envelope(
    client: FlaskClient, headers: dict[str, str], session: Session, name: str
) -> None:
    answer = client.post("/leads", data=BODIES[name], content_type="application/json", headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json["error"]) == {"code", "message", "details", "request_id"}
    assert stored(session) == 0


def test_an_unknown_lead_is_told_as_older_clients_look_for_it(client: FlaskClient, headers: dict[str, str]) -> None:
    for path in ("/leads/nobody", f"/leads/{uuid.uuid4()}", "/leads/nobody/insight"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 404 and answer.json["detail"] == "Lead not found"
        error = answer.json["error"]
        assert (error["code"], error["message"]) == ("not_found", "Lead not found")
        assert answer.headers["X-Request-ID"] == error["request_id"]


# Search


@pytest.fixture
def find(client: FlaskClient, headers: dict[str, str]) -> Callable[..., list[str]]:
    def do(**query: str) -> list[str]:
        answer = client.get("/leads/search", query_string=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return [one["lead_id"] for one in answer.json["results"]]

    return do


Find = Callable[..., list[str]]


@pytest.fixture
def some(post: Post) -> None:
    post(lead_id="dao", full_name="Nguyễn Thị Đào", email="dao.Nguyen@Acme.example", phone="+84 912 345 670")
    post(lead_id="jose", full_name="José Müller", email="jose@globex.example", phone="0912 999 888", country_code="VN")
    post(lead_id="nfd", full_name="Zoe\u0308 A_b%c", email="zoe+x@globex.example")  # Zoë with a combining mark
    post(lead_id="nameless", phone="+1 (415) 555-2671")


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"name": "guyen"}, ["dao"]),  # inside a word
        ({"name": "NGUYỄN THỊ ĐÀO"}, ["dao"]),
        ({"name": "thi dao"}, ["dao"]),
        ({"name": "ø"}, []),
        ({"name": "mull"}, ["jose"]),
        ({"name": "ZOE"}, ["nfd"]),
        ({"name": "zoë"}, ["nfd"]),
        ({"name": "_b%"}, ["nfd"]),  # no wildcards
        ({"name": "%"}, ["nfd"]),
        ({"name": "acme"}, []),  # that is her e-mail
        ({"name": "o"}, ["nfd", "jose", "dao"]),  # newest first
        ({"email": "GLOBEX"}, ["nfd", "jose"]),
        ({"email": "o.nguyen@"}, ["dao"]),
        ({"email": "zoe+x"}, ["nfd"]),
        ({"phone": "345 67"}, ["dao"]),
        ({"phone": "+84-912-345"}, ["dao"]),
        ({"phone": "0912999"}, ["jose"]),  # as sent
        ({"phone": "84912999"}, ["jose"]),  # and in E.164
        ({"phone": "(415) 555"}, ["nameless"]),
        ({"phone": "8884"}, []),  # not across the two spellings
        ({"name": "o", "email": "globex", "phone": "999"}, ["jose"]),  # all of them
        ({"name": "dao", "email": "globex"}, []),
        ({"name": "dao", "email": ""}, ["dao"]),  # an empty one is none
        ({"name": "\n"}, None),
    ],
)
def test_search_by_parts(client: FlaskClient, headers: dict[str, str], find: Find, query: Any, expected: Any) -> None:
    if expected is None:
        answer = client.get("/leads/search", query_string=query, headers=headers)
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "missing_param")
    else:
        assert find(**query) == expected


def test_search_answers_at_most_fifty_the_newest(
    session: Session, workspace: Workspace, client: FlaskClient, headers: dict[str, str]
) -> None:
    made = [factories.make_lead(session, workspace, f"message {n}", name="Same Name") for n in range(52)]
    results = client.get("/leads/search?name=same", headers=headers).json["results"]
    assert [one["id"] for one in results] == [str(lead.id) for lead in made[:1:-1]]
    assert set(results[0]) == {"id", "lead_id", "name", "email", "phone", "crm_synced", "created_at"}
    assert results[0]["lead_id"] == results[0]["id"]


@pytest.mark.parametrize(
    ("query", "code"),
    [("", "missing_param"), ("name=", "missing_param"), ("phone=%20", "missing_param"), ("phone=abc", "invalid_param"),
     ("name=" + "x" * 201, "invalid_param"), ("q=ada", "missing_param")],
)  # fmt: skip
def test_search_needs_something_to_search_for(
    client: FlaskClient, headers: dict[str, str], query: str, code: str
) -> None:
    answer = client.get(f"/leads/search?{query}", headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, code)
    assert answer.json["error"]["details"]


def test_the_database_folds_as_the_console_does(session: Session) -> None:
    for text in ("Nguyễn Thị Đào", "ĐẶT HÀNG", "Ada", "Zoë", "José MÜLLER", "Łukasz", "Ünïcödé", "李雷", "Øberg", ""):
        assert session.scalar(sa.select(sa.func.search_fold(text))) == fold_search(text), text


def test_lines_in_a_name_do_not_make_it_an_email(post: Post, find: Find) -> None:
    post(lead_id="lines", full_name="Ada\nb@example.com\n555", email="a@example.com", phone="+14155552671")
    assert find(name="ada b@example") == ["lines"]
    assert find(email="b@example") == [] and find(email="a@example.com") == ["lines"]
    assert find(phone="415555") == ["lines"]


def test_the_longest_contact_still_fits_the_index(post: Post, find: Find) -> None:
    wide = "\U00020000"  # four bytes
    post(lead_id="wide", full_name=wide * 400, phone="1" * 100, email="a@example.com")
    assert find(name=wide) == ["wide"]
