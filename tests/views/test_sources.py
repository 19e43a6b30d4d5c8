"""Settings, inbound webhooks: making one, mapping its fields against the last request, its proof, limits and end."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.api import hook_bodies as bodies
from tests.views.conftest import fragment
from webapp.leads import sources
from webapp.leads.presets import PRESETS
from webapp.leads.states import Role, Verification
from webapp.models import AuditEvent, Lead, Quarantined, Workspace
from webapp.models.inbound import InboundSource

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def admin(client: FlaskClient, login: Callable[..., Any]) -> Any:
    return login(client, Role.ADMIN, name="Ada Admin")


def the_source(session: Session) -> InboundSource:
    session.rollback()
    return session.scalars(sa.select(InboundSource)).one()


@pytest.fixture
def page(client: FlaskClient, admin: Any, session: Session) -> str:
    """The path of a new webhook's page."""
    answer = client.post("/settings/inbound", data={"name": "Contact form"})
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def path_of(text: str) -> str:
    found = re.search(r"/hooks/[\w-]+", text)
    assert found
    return found[0]


def read(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"(?s)<(script|head).*?</\1>|<[^>]*>", " ", text)).split())


def value_of(text: str, field: str) -> str:
    """What stands in the editor's input."""
    found = re.search(rf'(?s)<input id="m-{field}"[^>]*?\svalue="([^"]*)"', text)
    assert found, field
    return html.unescape(found[1])


def yields(text: str, field: str) -> str:
    found = re.search(rf'(?s)<output id="y-{field}".*?>(.*?)</output>', text)
    assert found, field
    return read(found[1])


def events(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(sa.select(AuditEvent.event_type).order_by(AuditEvent.id)))


def test_the_first_page_says_what_to_do(client: FlaskClient, admin: Any) -> None:
    said = read(client.get("/settings/inbound").text)
    assert "No inbound webhook yet" in said and "Typeform" in said and "None" not in said


def test_a_new_webhook_shows_its_address_and_waits(client: FlaskClient, page: str, session: Session) -> None:
    text = client.get(page).text
    assert "Waiting for the first request" in text and "curl http" in html.unescape(text)
    assert text.count(path_of(text)) >= 2 and "data-copy=" in text
    assert events(session) == ["SOURCE_CREATED"]
    token = path_of(text).rpartition("/")[2]
    kept = session.execute(sa.text("SELECT row_to_json(s)::text FROM inbound_sources s")).scalar_one()
    assert token not in kept  # found by its hash, shown by decrypting


def test_the_command_on_the_page_works(client: FlaskClient, page: str, session: Session) -> None:
    text = html.unescape(client.get(page).text)
    body = re.search(r"-d '(\{.*?\})'", text)
    assert body
    client.post(f"{page}/mapping", data=form(PRESETS["plain"].mapping))
    assert client.post(path_of(text), json=json.loads(body[1])).json["created"] == 1


def test_a_page_that_waits_is_told_of_the_first_request_and_left_alone_until_then(
    client: FlaskClient, page: str
) -> None:
    text = client.get(page).text
    ask = {"HX-Request": "true", "HX-Target": "section#first-request"}
    assert f'hx-get="{page}"' in text and 'hx-target="#first-request"' in text
    assert (client.get(page, headers=ask).status_code, client.get(page, headers=ask).text) == (204, "")
    client.post(path_of(text), json={"message": "How much is it?"})
    told = client.get(page, headers=ask).text
    assert "The first request has come." in told and "<form" not in told and "hx-get" not in told
    assert "hx-get" not in client.get(page).text.partition("Which value is which")[0].partition('id="content"')[2]


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\x07b"])
def test_a_bad_name_is_refused_and_kept(client: FlaskClient, admin: Any, session: Session, name: str) -> None:
    answer = client.post("/settings/inbound", data={"name": name, "preset": "google"})
    assert answer.status_code == 422 and "1 to 80 characters" in answer.text
    assert re.search(r'value="google"\s+selected', answer.text)
    assert session.scalar(sa.select(sa.func.count()).select_from(InboundSource)) == 0


def test_a_name_is_given_once(client: FlaskClient, page: str, session: Session) -> None:
    answer = client.post("/settings/inbound", data={"name": "  Contact   form "})
    assert answer.status_code == 422 and "is taken already" in answer.text


def form(mapping: dict[str, str]) -> dict[str, str]:
    return {f"map-{field}": text for field, text in mapping.items()}


def test_from_the_first_request_to_a_lead(client: FlaskClient, page: str, session: Session) -> None:
    """The whole way: a request comes, is recognised, mapped, previewed, saved, replayed."""
    path = path_of(client.get(page).text)
    assert client.post(path, json=bodies.TYPEFORM).status_code == 202
    text = client.get(page).text
    assert "1 request waits in quarantine" in read(text) and "This looks like Typeform" in read(text)
    assert "Map the fields, save, and replay it" in read(text)
    offered = client.get(f"{page}?preset=typeform").text
    assert "Not saved yet" in offered and yields(offered, "email") == "ada@analytical.example"
    assert yields(offered, "name") == "Ada Lovelace"
    assert "The lead that the last request makes" in offered and "price inquiry" in read(offered)
    assert the_source(session).mapping == {}

    answer = client.post(f"{page}/mapping", data=form(PRESETS["typeform"].mapping))
    assert (answer.status_code, answer.location) == (303, page)
    saved = client.get(page).text
    assert "1 held requests can be replayed now" in saved and "Replay it" in read(saved)
    assert client.post(f"{page}/replay").status_code == 303
    assert "1 new lead" in read(client.get(page).text)
    session.rollback()
    lead = session.scalars(sa.select(Lead)).one()
    assert (lead.name, lead.source) == ("Ada Lovelace", "Contact form")
    assert events(session)[1:] == ["SOURCE_CHANGED", "LEAD_SIGNAL_CREATED", "QUARANTINE_REPLAYED"]
    listed = read(client.get("/settings/inbound").text)
    assert re.search(r"Contact form ● on http\S+/hooks/\S+ Copy the address of Contact form just now 1 0 ", listed), (
        listed
    )


def test_the_preview_swaps_what_the_fields_yield_and_saves_nothing(
    client: FlaskClient, page: str, session: Session
) -> None:
    client.post(path_of(client.get(page).text), json=bodies.PLAIN)
    typed = form(
        {"email": "Email", "name": "first_name + nothing", "message": "note[", "phone": "address", "budget": "note"}
    )
    answer = client.post(f"{page}/preview", data=typed, headers=fragment("outcome"))
    assert answer.status_code == 200 and "<html" not in answer.text and "<form" not in answer.text
    assert answer.text.count('hx-swap-oob="true"') == len(re.findall(r"<output", answer.text)) > 20
    assert yields(answer.text, "email") == "linus@kernel.example"
    assert yields(answer.text, "name") == "Linus"
    assert yields(answer.text, "message") == "has a bracket that is not closed"
    assert yields(answer.text, "phone") == "finds nothing here"
    assert "is not one amount" in yields(answer.text, "budget")
    assert yields(answer.text, "company") == ""
    whole = client.post(f"{page}/preview", data=typed).text  # without JavaScript, by the button
    assert "<html" in whole and value_of(whole, "message") == "note[" and "Not saved yet" in whole
    assert yields(whole, "message") == "has a bracket that is not closed"
    assert the_source(session).mapping == {}


def test_a_bad_path_is_refused_in_words_and_kept(client: FlaskClient, page: str, session: Session) -> None:
    answer = client.post(f"{page}/mapping", data=form({"email": "a..b", "message": "note", "city": "[?"}))
    assert answer.status_code == 422 and "Nothing was saved" in answer.text
    assert value_of(answer.text, "email") == "a..b" and value_of(answer.text, "message") == "note"
    assert "must name each level" in yields(answer.text, "email") and yields(answer.text, "city")
    assert re.search(r'(?s)<details class="fold"\s+open>\s*<summary>\s*More about the person', answer.text)
    assert the_source(session).mapping == {}
    answer = client.post(f"{page}/mapping", data=form({"name": "n"}))
    assert answer.status_code == 422 and "is needed, or an e-mail or a phone" in read(answer.text)
    assert events(session) == ["SOURCE_CREATED"]


def test_saving_the_same_again_changes_nothing(client: FlaskClient, page: str, session: Session) -> None:
    for _ in range(2):
        client.post(f"{page}/mapping", data=form({"email": "email"}) | {"map-nonsense": "x", "other": "y"})
    assert the_source(session).mapping == {"email": "email"}
    assert events(session) == ["SOURCE_CREATED", "SOURCE_CHANGED"]


@pytest.mark.parametrize(
    "sample", [[1, 2], [], "text", {"a": HOSTILE, HOSTILE: {"b": [HOSTILE]}}, {"n": None, "d": {"x": {}}}]
)
def test_any_sample_can_be_shown(client: FlaskClient, page: str, session: Session, sample: Any) -> None:
    source = the_source(session)
    source.last_sample, source.mapping = json.dumps(sample), {"email": "a", "message": "d"}
    session.commit()
    answer = client.get(page)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text and "<img" not in answer.text


def test_a_sample_with_what_text_cannot_hold(client: FlaskClient, page: str) -> None:
    path = path_of(client.get(page).text)
    for odd in (b'{"a": "\\ud800", "b": "x\\u0000y"}', b'{"a": 1e999}', b'{"a": NaN, "\\ud800": 1}',
                b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}", b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}"):  # fmt: skip
        assert client.post(path, data=odd, content_type="application/json").status_code == 202
        client.post(f"{page}/mapping", data=form({"message": "a", "name": "b"}))
        assert client.get(page).status_code == 200
        client.post(f"{page}/mapping", data={})


def test_an_encrypted_value_is_not_shown_and_still_mapped(client: FlaskClient, page: str, session: Session) -> None:
    path = path_of(client.get(page).text)
    client.post(path, json={"email": "a@b.example", "date_of_birth": "1970-01-02"})
    client.post(f"{page}/mapping", data=form({"email": "email", "date_of_birth": "date_of_birth"}))
    text = client.get(page).text
    assert "enc:" not in text and yields(text, "date_of_birth") == "1970-01-02"
    client.post(f"{page}/replay")
    session.rollback()
    lead = session.scalars(sa.select(Lead)).one()
    assert lead.attributes["date_of_birth"].startswith("enc:")


def test_an_encrypted_value_of_elsewhere_is_text_in_the_preview(app: Flask, client: FlaskClient, page: str) -> None:
    stolen = app.extensions["cipher"].encrypt("the secret of a destination")
    client.post(path_of(client.get(page).text), json={"note": stolen, "salary": stolen})
    client.post(f"{page}/mapping", data=form({"message": "note", "name": "salary"}))
    text = client.get(page).text
    assert "the secret of a destination" not in text
    assert yields(text, "message").startswith("enc:") and yields(text, "name").startswith("enc:")


def test_the_proof_is_set_kept_and_checked(app: Flask, client: FlaskClient, page: str, session: Session) -> None:
    sent = {"verification": "hmac", "secret": "s3cret", "header": "Typeform-Signature", "prefix": "sha256="}
    bad = [
        (sent | {"secret": ""}, "is needed"), (sent | {"header": "no header"}, "name of a header"),
        (sent | {"verification": "standard", "secret": "whsec_short"}, "24 to 64"),
        (sent | {"verification": "body", "header": "a..b"}, "each level"), (sent | {"prefix": "x" * 41}, "40 printable"),
    ]  # fmt: skip
    for given, said in bad:
        answer = client.post(f"{page}/proof", data=given)
        assert answer.status_code == 422 and said in answer.text, given
        assert the_source(session).verification is Verification.NONE
    assert client.post(f"{page}/proof", data=sent).status_code == 303
    source = the_source(session)
    assert (source.verification, source.signature_header, source.signature_prefix) == (
        Verification.HMAC, "Typeform-Signature", "sha256=")  # fmt: skip
    assert source.secret and "s3cret" not in source.secret
    text = client.get(page).text
    assert "s3cret" not in text and "leave it empty to keep it" in text
    assert client.post(path_of(text), json=bodies.PLAIN).status_code == 401
    client.post(f"{page}/proof", data=sent | {"secret": "", "prefix": ""})
    source = the_source(session)
    assert app.extensions["cipher"].decrypt(source.secret) == "s3cret" and source.signature_prefix is None
    # Another kind of proof needs a secret of its own.
    assert client.post(f"{page}/proof", data=sent | {"verification": "hubspot", "secret": ""}).status_code == 422
    client.post(f"{page}/proof", data={"verification": "none"})
    assert the_source(session).secret is None
    assert client.post(path_of(text), json=bodies.PLAIN).status_code == 202
    assert "s3cret" not in str(session.scalars(sa.select(AuditEvent.details)).all())


def test_name_and_limits(client: FlaskClient, page: str, session: Session) -> None:
    given = {"name": "Fair", "limit_max": "5", "limit_burst": "", "limit_day": "0"}
    for wrong in ("-1", "many", "1.5", "٣", "9" * 11):
        answer = client.post(f"{page}/limits", data=given | {"limit_max": wrong})
        assert answer.status_code == 422 and "whole number" in answer.text and html.escape(wrong) in answer.text
    assert client.post(f"{page}/limits", data=given | {"name": ""}).status_code == 422
    assert client.post(f"{page}/limits", data=given).status_code == 303
    source = the_source(session)
    assert (source.name, source.limit_max, source.limit_burst, source.limit_day) == ("Fair", 5, None, 0)
    assert client.post("/settings/inbound", data={"name": "Other"}).status_code == 303
    assert "is taken already" in client.post(f"{page}/limits", data=given | {"name": "Other"}).text


def test_off_on_another_address_and_gone(client: FlaskClient, page: str, session: Session) -> None:
    path = path_of(client.get(page).text)
    client.post(path, json=bodies.PLAIN)
    client.post(f"{page}/off")
    assert "Switched off" in client.get(page).text
    assert client.post(path, json=bodies.PLAIN).status_code == 403
    client.post(f"{page}/on")
    client.post(f"{page}/rotate")
    fresh = path_of(client.get(page).text)
    assert fresh != path and client.post(path, json=bodies.PLAIN).status_code == 404
    assert client.post(fresh, json=bodies.PLAIN).status_code == 202
    refused = client.post(f"{page}/delete", data={"confirm": "contact"})
    assert refused.status_code == 422 and "as above" in refused.text
    assert client.post(f"{page}/delete", data={"confirm": "Contact form"}).location == "/settings/inbound"
    assert client.get(page).status_code == 404 and client.post(fresh, json={}).status_code == 404
    assert session.scalars(sa.select(Quarantined.times)).all() == [2]  # the very same, twice
    assert events(session) == ["SOURCE_CREATED", "SOURCE_OFF", "SOURCE_ON", "SOURCE_ROTATED", "SOURCE_DELETED"]


def test_an_address_that_no_key_decrypts_is_said_so(client: FlaskClient, page: str, session: Session) -> None:
    source = the_source(session)
    source.token = "enc:nonsense"
    session.commit()
    assert "cannot be read any more" in client.get(page).text
    assert "give it a new one" in client.get("/settings/inbound").text


def test_the_list_counts_what_is_there(client: FlaskClient, page: str, session: Session, workspace: Workspace) -> None:
    path = path_of(client.get(page).text)
    client.post(path, json={"colour": "red"})
    client.post(f"{page}/mapping", data=form({"email": "email"}))
    for n in range(3):
        client.post(path, json={"email": f"p{n}@b.example"})
    session.execute(sa.text("UPDATE leads SET created_at = now() - interval '8 days' WHERE email = 'p0@b.example'"))
    session.commit()
    (row,) = sources.listing(session, workspace.id)
    assert (row.leads, row.held) == (2, 1)
