"""Settings → Enrichment: what is asked, own services described and tried, how each is doing in words."""

import pytest
import sqlalchemy as sa

from tests.fakes.company_data import KEY, CompanyDataFake
from tests.views.test_pages import text_of
from webapp.clients import guard
from webapp.clients.lookups import Lookups
from webapp.leads import enrichment_store
from webapp.leads.states import LookupSubject, Role
from webapp.models import AuditEvent, EnrichmentHealth, EnrichmentProvider, Workspace

FORM = {"name": "DataCo", "subject": "domain", "url": "https://data.example/find?domain={domain}", "auth": "header",
        "auth_name": "X-Api-Key", "auth_prefix": "", "secret": KEY, "trust": "0.8", "map-company_name": "name"}  # fmt: skip


@pytest.fixture
def admin(client, login):
    return login(client, Role.ADMIN, name="Ana Torres")


@pytest.fixture
def fake(app):
    """A service on this host, which the admin's form may reach."""
    kept = app.extensions["lookups"]
    decrypt = app.extensions["cipher"].decrypt
    lookups = Lookups(None, decrypt, seconds=3, allow=guard.networks(["127.0.0.0/8"]))
    app.extensions["lookups"] = lambda: lookups
    with CompanyDataFake() as server:
        yield server
    app.extensions["lookups"] = kept


def saved(session):
    session.rollback()
    return session.scalars(sa.select(EnrichmentProvider).execution_options(populate_existing=True)).one()


def test_built_in_sources_and_the_age_are_kept(client, session, workspace, admin):
    answer = client.post("/settings/enrichment", data={"dns": "on", "max_age_days": "7"}, follow_redirects=True)
    assert "Saved" in answer.text
    session.rollback()
    chosen = session.get_one(Workspace, workspace.id, populate_existing=True).settings["enrich"]
    assert chosen == {"dns": True, "home": False, "crm": False, "max_age_days": 7}
    assert session.scalar(sa.select(sa.func.count()).where(AuditEvent.event_type == "ENRICHMENT_CHANGED")) == 1


@pytest.mark.parametrize("days", ["", "0", "366", "1.5", "x", "٣"])
def test_a_nonsense_age_is_refused_beside_its_field(client, workspace, admin, days):
    answer = client.post("/settings/enrichment", data={"max_age_days": days})
    assert answer.status_code == 422 and "must be a whole number of days" in text_of(answer.text)


def test_a_service_is_described_its_key_kept_encrypted_and_never_shown(client, session, workspace, admin):
    assert client.post("/settings/enrichment/new", data=FORM).status_code == 303
    row = saved(session)
    assert row.secret.startswith("enc:") and KEY not in row.secret
    page = client.get(f"/settings/enrichment/{row.id}").text
    assert KEY not in page and row.secret not in page
    client.post(f"/settings/enrichment/{row.id}", data=FORM | {"secret": "", "map-city": "geo.city"})
    after = saved(session)
    assert (after.version, after.mapping) == (2, {"company_name": "name", "city": "geo.city"})
    assert after.secret == row.secret


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "must have 1 to 80 characters"),
        ({"name": "home page"}, "built-in source"),
        ({"url": "ftp://x.example/{domain}"}, "must begin with https://"),
        ({"url": "https://x.example/"}, "must hold {domain}"),
        ({"url": "https://{domain}/x"}, "must not have {domain} in its host"),
        ({"url": "https://u:p@x.example/{domain}"}, "must not hold a user name"),
        ({"url": "https://x.example/{domain}/{key}"}, "no other braces"),
        ({"subject": "email"}, "must hold {email}"),
        ({"auth_name": "Host"}, "name of a header"),
        ({"auth_name": "X-Key\r\nX: y"}, "name of a header"),
        ({"secret": ""}, "is needed where a key is sent"),
        ({"trust": "2"}, "must be a number above 0"),
        ({"trust": "nan"}, "must be a number above 0"),
        ({"map-company_name": ""}, "needs at least one fact"),
        ({"map-city": "a..b"}, "must name each level"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_saved(client, session, workspace, admin, wrong, said):
    answer = client.post("/settings/enrichment/new", data=FORM | wrong)
    assert answer.status_code == 422
    assert said in text_of(answer.text)
    assert 'value="https://' in answer.text or "url" in wrong  # what was typed is still there
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(EnrichmentProvider)) == 0


def test_two_services_do_not_share_a_name(client, workspace, admin):
    client.post("/settings/enrichment/new", data=FORM)
    answer = client.post("/settings/enrichment/new", data=FORM)
    assert answer.status_code == 422 and "a service of that name" in text_of(answer.text)


@pytest.mark.parametrize("preset", ["clearbit", "apollo", "pdl", "hunter", "zerobounce"])
def test_a_preset_is_a_form_that_can_be_saved_once_the_key_is_typed(client, session, workspace, admin, preset):
    from webapp.leads.enrichment_settings import from_preset

    given = from_preset(preset)
    assert given.name in client.get(f"/settings/enrichment/new?preset={preset}").text
    fields = {
        name: getattr(given, name) for name in ("name", "subject", "url", "auth", "auth_name", "auth_prefix", "trust")
    }
    mapping = {f"map-{name}": path for name, path in given.mapping.items()}
    assert client.post("/settings/enrichment/new", data=fields | mapping | {"secret": "k"}).status_code == 303
    assert saved(session).mapping == dict(given.mapping)


def test_trying_shows_what_a_lead_would_learn(client, session, workspace, admin, fake):
    url = f"{fake.url}/apollo/organizations/enrich?domain={{domain}}"
    mapping = {"map-company_name": "organization.name", "map-country": "organization.country", "map-company_employees": "organization.name"}  # fmt: skip
    client.post("/settings/enrichment/new", data=FORM | mapping | {"url": url})
    row = saved(session)
    text = text_of(client.post(f"/settings/enrichment/{row.id}/try", data={"asked": "Acme-Pumps.de"}).text)
    assert "Acme Pumps GmbH" in text and "Germany" in text and "company employees" in text.lower()
    nobody = text_of(client.post(f"/settings/enrichment/{row.id}/try", data={"asked": "nobody.de"}).text)
    assert "nothing is learned" in nobody
    fake.fail_next(kind="401")
    refused = text_of(client.post(f"/settings/enrichment/{row.id}/try", data={"asked": "acme-pumps.de"}).text)
    assert "does not accept our key" in refused
    wrong = client.post(f"/settings/enrichment/{row.id}/try", data={"asked": "not a domain"})
    assert wrong.status_code == 422 and "must be a domain" in text_of(wrong.text)


def test_how_a_service_is_doing_is_said_in_words_and_it_can_be_asked_again(client, session, workspace, admin):
    client.post("/settings/enrichment/new", data=FORM)
    row = saved(session)
    health = EnrichmentHealth(
        workspace_id=workspace.id, provider=enrichment_store.own(row).key, failures=7, last_error="it answered 500",
        last_error_at=sa.func.now(), open_until=sa.func.now() + sa.text("interval '1 minute'"),
    )  # fmt: skip
    session.add(health)
    session.commit()
    text = text_of(client.get("/settings/enrichment").text)
    assert "▲ left alone" in " ".join(text.split()) and "it answered 500" in text
    client.post(f"/settings/enrichment/{row.id}/reset")
    session.refresh(health)
    assert (health.failures, health.open_until) == (0, None)
    assert "▲" not in text_of(client.get("/settings/enrichment").text)


def test_a_service_is_switched_off_and_removed(client, session, workspace, admin):
    client.post("/settings/enrichment/new", data=FORM)
    row = saved(session)
    client.post(f"/settings/enrichment/{row.id}/off")
    assert saved(session).enabled is False
    assert enrichment_store.sources(session, [workspace.id])[workspace.id][-1].subject is LookupSubject.DOMAIN
    assert all(source.service is None for source in enrichment_store.sources(session, [workspace.id])[workspace.id])
    client.post(f"/settings/enrichment/{row.id}/remove")
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(EnrichmentProvider)) == 0
