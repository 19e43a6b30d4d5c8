"""The forms of destinations whose settings are looked at together: a sheet, a mail server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from tests.fakes.sheets import ACCOUNT, SPREADSHEET, service_account
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import CIPHER, drain, planned, webhook_destination
from webapp.leads.states import Role
from webapp.models import Destination, Workspace

Login = Callable[..., Any]
KEY = json.dumps(service_account("https://oauth2.googleapis.com/token"))
SHEET = {
    "name": "Sales sheet",
    "spreadsheet": f"https://docs.google.com/spreadsheets/d/{SPREADSHEET}/edit#gid=0",
    "tab": "Leads",
    "key": KEY,
}
MAIL = {
    "name": "Sales mail",
    "host": "smtp.acme.example",
    "port": "587",
    "security": "starttls",
    "user": "console",
    "password": "mail-password",
    "sender": "leads@acme.example",
    "to": "ana@acme.example bob@acme.example",
    "when": "daily",
    "hour": "8",
    "zone": "Europe/Berlin",
}


@pytest.fixture
def admin(client: FlaskClient, login: Login) -> FlaskClient:
    login(client, Role.ADMIN)
    return client


def _stored(session: Session) -> Destination:
    return session.scalars(sa.select(Destination)).one()


def test_a_sheet_says_whom_it_has_to_be_shared_with_and_shows_no_key(admin: FlaskClient, session: Session) -> None:
    assert "Key of the service account" in admin.get("/settings/destinations/new/sheets").text
    page = admin.post("/settings/destinations/new/sheets", data=SHEET, follow_redirects=True).text
    row = _stored(session)
    assert f"Share the spreadsheet with {ACCOUNT} as an editor." in page
    assert "PRIVATE KEY" not in page and json.loads(CIPHER.decrypt(row.credentials)["key"]) == json.loads(KEY)
    assert row.config == {"spreadsheet": SPREADSHEET, "tab": "Leads", "account": ACCOUNT}
    assert row.options == {"per_minute": 60} and row.rules == {"qualified_only": True}


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"key": "{}"}, "Key of the service account must be the key of a service account"),
        ({"spreadsheet": "Leads 2026"}, "Spreadsheet must be the spreadsheet’s address"),
        (
            {"form": "1", "on": "approved", "more-name": "lead id", "more-value": "email"},
            "is filled by the console itself",
        ),
    ],
)
def test_a_sheet_that_cannot_work_is_refused_in_words(
    admin: FlaskClient, session: Session, over: dict[str, str], words: str
) -> None:
    answer = admin.post("/settings/destinations/new/sheets", data=SHEET | over)
    assert answer.status_code == 422
    assert words.replace("’", "'") in answer.text.replace("&#39;", "'").replace("’", "'")
    assert "PRIVATE KEY" not in answer.text
    assert session.scalar(sa.select(sa.func.count()).select_from(Destination)) == 0


def test_a_mail_server_is_kept_with_its_password_encrypted(admin: FlaskClient, session: Session) -> None:
    page = admin.post("/settings/destinations/new/email", data=MAIL, follow_redirects=True).text
    row = _stored(session)
    assert "mail-password" not in page and CIPHER.decrypt(row.credentials) == {"password": "mail-password"}
    assert row.config["to"] == "ana@acme.example, bob@acme.example" and row.config["hour"] == 8
    assert "Also tell of trouble" in page and "When nobody can tell whether it arrived" in page


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"security": "none"}, "must be with encryption where a user name is given"),
        ({"password": ""}, "is needed with a user name"),
        ({"when": "minutes", "minutes": ""}, "Minutes between digests is needed"),
        ({"to": "ana@acme.example, x"}, "x is not an address"),
    ],
)
def test_a_mail_server_that_cannot_work_is_refused_in_words(
    admin: FlaskClient, session: Session, over: dict[str, str], words: str
) -> None:
    answer = admin.post("/settings/destinations/new/email", data=MAIL | over)
    assert answer.status_code == 422 and words in answer.text
    assert "mail-password" not in answer.text
    assert session.scalar(sa.select(sa.func.count()).select_from(Destination)) == 0


def test_a_test_of_one_that_cannot_be_called_says_what_to_do(
    admin: FlaskClient, session: Session, workspace: Workspace
) -> None:
    with WebhookReceiver() as receiver:
        row = webhook_destination(session, workspace, receiver, credentials="enc:nonsense")
        page = admin.post(f"/settings/destinations/{row.id}/test", follow_redirects=True).text
    said = "its credentials cannot be read with the keys of this server. Put the key that they were encrypted with back"
    assert f"<b>The last test failed:</b> {said}" in page and "Nothing of a lead was sent." in page
    session.refresh(row)
    assert (row.test_problem or "").endswith("or enter them again in its settings.")


def test_one_that_deliveries_wait_for_says_what_to_do(
    admin: FlaskClient, session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    with WebhookReceiver() as receiver:
        row = webhook_destination(session, workspace, receiver, credentials="enc:nonsense")
        planned(session, workspace)
        drain(session_factory)
    page = admin.get(f"/settings/destinations/{row.id}").text
    assert "Hook cannot be called: its credentials cannot be read" in page
    assert "or enter them again in its settings. Deliveries go out by themselves then." in page


def test_the_list_names_sources_intents_and_languages_as_other_pages_do(
    admin: FlaskClient, session: Session, workspace: Workspace
) -> None:
    with WebhookReceiver() as receiver:
        row = webhook_destination(session, workspace, receiver)
    row.rules = {"source": ["google_ads", "Fair"], "intent": ["purchase_intent"], "lang": ["vi"], "country": ["VN"]}
    session.commit()
    page = admin.get("/settings/destinations").text
    assert "intents: purchase; sources: Google Ads, Fair; countries: VN; languages: Vietnamese" in page


def test_one_that_has_taken_a_delivery_works_whether_it_was_tested_or_not(
    admin: FlaskClient, session: Session, workspace: Workspace, session_factory: sessionmaker[Session]
) -> None:
    with WebhookReceiver() as receiver:
        row = webhook_destination(session, workspace, receiver)
        assert "not tested" in admin.get(f"/settings/destinations/{row.id}").text
        planned(session, workspace)
        drain(session_factory)
    page = admin.get(f"/settings/destinations/{row.id}").text
    assert "not tested" not in page and "</span> works</span>" in page
