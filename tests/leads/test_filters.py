"""Filters of lists by where leads came from and by consent; on the page, in the API, and answered from an index."""

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from tests import factories
from webapp.leads import filters, queries
from webapp.leads.errors import Invalid
from webapp.leads.filters import LeadFilter
from webapp.models import Lead, Workspace

LEADS: dict[str, dict[str, Any]] = {
    "spring": {"attribution": {"utm_source": "google", "utm_medium": "cpc", "utm_campaign": "spring", "gclid": "g-1"}},
    "autumn": {
        "attribution": {
            "utm_source": "google",
            "utm_campaign": "autumn",
            "utm_term": "crm",
            "utm_content": "blue",
            "landing_page": "https://acme.example/autumn",
            "referrer": "https://news.example/",
        },
        "consent": "yes",
        "consent_at": datetime(2026, 11, 1, 23, 30, tzinfo=UTC),
    },
    "social": {"attribution": {"utm_source": "facebook", "fbclid": "f-1"}, "consent": "no"},
    "direct": {"consent": "newsletter only"},
}
ASKED: list[tuple[dict[str, str], set[str]]] = [
    ({"utm_source": "google"}, {"spring", "autumn"}),
    ({"utm_source": "Google"}, set()),
    ({"utm_source": "google", "utm_campaign": "autumn"}, {"autumn"}),
    ({"utm_medium": "cpc"}, {"spring"}),
    ({"gclid": "yes"}, {"spring"}),
    ({"gclid": "no"}, {"autumn", "social", "direct"}),
    ({"fbclid": "yes"}, {"social"}),
    ({"fbclid": "no", "gclid": "no"}, {"autumn", "direct"}),
    ({"gclid": "g-1"}, {"spring"}),
    ({"gclid": "maybe"}, set()),
    ({"utm_term": "crm"}, {"autumn"}),
    ({"utm_content": "red"}, set()),
    ({"landing_page": "https://acme.example/autumn"}, {"autumn"}),
    ({"referrer": "https://news.example/"}, {"autumn"}),
    ({"consent_from": "2026-11-01"}, {"autumn"}),
    ({"consent_from": "2026-11-02"}, set()),
    ({"consent_from": "2026-11-02T00:00:00+07:00", "consent_to": "2026-11-02"}, {"autumn"}),
    ({"consent_to": "2026-11-01T23:30:00Z"}, set()),
    ({"consent": "yes"}, {"autumn"}),
    ({"consent": "no"}, {"social"}),
    ({"consent": "none"}, {"spring"}),
    ({"consent": "newsletter only"}, {"direct"}),
    ({"utm_source": "google", "consent": "none"}, {"spring"}),
    ({"utm_campaign": "spring'; DROP TABLE leads; --"}, set()),
    ({"utm_campaign": '{"a": 1}'}, set()),
]


@pytest.fixture
def leads(session: Session, workspace: Workspace) -> dict[str, str]:
    """Name → id, in ``workspace``; another workspace has the same."""
    other = factories.make_workspace(session)
    for name, values in LEADS.items():
        factories.make_lead(session, other, f"pricing for {name} please", **values)
    return {
        str(factories.make_lead(session, workspace, f"pricing for {name} please", **values).id): name
        for name, values in LEADS.items()
    }


@pytest.mark.parametrize(("asked", "wanted"), ASKED, ids=[str(asked) for asked, _ in ASKED])
def test_leads_are_found_by_attribution_and_consent(
    client: FlaskClient,
    headers: dict[str, str],
    session: Session,
    workspace: Workspace,
    leads: dict[str, str],
    asked: dict[str, str],
    wanted: set[str],
) -> None:
    answer = client.get("/api/v1/leads", query_string=asked, headers=headers)
    assert {leads[lead["id"]] for lead in answer.json["leads"]} == wanted
    chosen = LeadFilter.parse(asked)
    assert chosen.narrowed and chosen.attributed
    assert queries.counts(session, workspace.id, chosen).of("all").n == len(wanted)


def test_what_is_no_date_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    with pytest.raises(Invalid) as refused:
        LeadFilter.parse({"consent_from": "yesterday", "consent_to": "0001-01-01T00:00:00+14:00"})
    assert [problem.field for problem in refused.value.details] == ["consent_from", "consent_to"]
    answer = client.get("/api/v1/leads", query_string={"consent_from": "1"}, headers=headers)
    assert answer.status_code == 400 and answer.json["error"]["details"][0]["field"] == "consent_from"


def test_the_queue_filters_and_keeps_the_filter(client: FlaskClient, login: Any, leads: dict[str, str]) -> None:
    login(client)
    page = client.get("/queue", query_string={"view": "all", "utm_campaign": "autumn", "consent": "yes"}).text
    assert "pricing for autumn" in page and "pricing for spring" not in page
    assert 'name="utm_campaign"' in page and 'value="autumn"' in page  # the form shows what is asked
    assert "utm_campaign=autumn&amp;consent=yes" in page  # and links carry it on
    assert '<details class="filter"' in page and "open>" in page


def test_attribution_can_be_found_by_its_index(session: Session) -> None:
    """What is asked has to imply the index's predicate, or PostgreSQL may not use it."""
    for asked in ({"utm_campaign": "spring"}, {"gclid": "yes"}):
        query = sa.select(Lead.id).where(*filters._attribution(LeadFilter.parse(asked)))
        compiled = query.compile(session.get_bind(), compile_kwargs={"render_postcompile": True})
        session.execute(sa.text("SET LOCAL enable_seqscan = off"))
        given = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in compiled.params.items()}
        raw = session.connection().exec_driver_sql(f"EXPLAIN {compiled}", given)
        plan = "\n".join(row[0] for row in raw)
        session.rollback()
        assert "ix_leads_attribution" in plan, plan
