"""``POST /api/v1/leads/{id}/outcome``: what became of a lead, told by programs."""

import uuid

from tests.factories import make_key, make_lead
from webapp.leads.states import Scope


def post(client, headers, lead_id, **body):
    return client.post(f"/api/v1/leads/{lead_id}/outcome", json=body, headers=headers)


def test_a_report_is_kept_and_read_back(client, headers, session, workspace):
    lead = make_lead(session, workspace, external_id="crm-1")
    made = post(client, headers, "crm-1", outcome="won", stage="Closed", value=1200, currency="EUR", external_id="d1",
                occurred_at="2026-11-01T08:00:00Z")  # fmt: skip
    assert made.status_code == 201, made.text
    assert {name: made.json[name] for name in ("lead_id", "outcome", "stage", "value", "currency", "source", "occurred_at")} == {
        "lead_id": str(lead.id), "outcome": "won", "stage": "Closed", "value": 1200.0, "currency": "EUR",
        "source": "api", "occurred_at": "2026-11-01T08:00:00.000000Z",
    }  # fmt: skip
    assert post(client, headers, lead.id, outcome="lost").status_code == 201
    told = client.get(f"/api/v1/leads/{lead.id}/outcomes", headers=headers).json["outcomes"]
    assert [one["outcome"] for one in told] == ["lost", "won"]


def test_a_repeat_is_answered_from_the_first_and_another_report_refused(client, headers, session, workspace):
    lead = make_lead(session, workspace)
    first = post(client, headers, lead.id, outcome="won", external_id="d1")
    again = post(client, headers, lead.id, outcome="won", external_id="d1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json == again.json
    refused = post(client, headers, lead.id, outcome="lost", external_id="d1")
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "idempotency_mismatch")


def test_what_is_not_understood_is_named(client, headers, session, workspace):
    lead = make_lead(session, workspace)
    for body, field in (
        ({"outcome": "perhaps"}, "outcome"),
        ({}, "outcome"),
        ({"outcome": "won", "value": -1}, "value"),
        ({"outcome": "won", "currency": "ZZZ"}, "currency"),
        ({"outcome": "won", "occurred_at": "2026-11-01T08:00:00"}, "occurred_at"),
        ({"outcome": "won", "who": "me"}, "who"),
    ):
        answer = post(client, headers, lead.id, **body)
        assert answer.status_code == 400, answer.text
        assert [problem["field"] for problem in answer.json["error"]["details"]] == [field]


def test_a_key_that_only_sends_leads_cannot(client, session, workspace):
    lead = make_lead(session, workspace)
    ingest = {"X-API-Key": make_key(session, workspace, scopes={Scope.INGEST, Scope.READ})}
    assert post(client, ingest, lead.id, outcome="won").status_code == 403
    review = {"X-API-Key": make_key(session, workspace, scopes={Scope.REVIEW})}
    assert post(client, review, uuid.uuid4(), outcome="won").status_code == 404
