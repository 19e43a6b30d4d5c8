"""Who may do what, enforced by the server whatever the page shows; and nobody reaches into another workspace."""

import uuid
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests.factories import make_key, make_lead, make_user, make_workspace
from webapp.leads.alerts import raise_alert
from webapp.leads.quarantine import Bad, quarantine
from webapp.leads.states import DestinationKind, Door, FetchKind, LookupSubject, Role
from webapp.models import (
    Absence,
    Alert,
    ApiKey,
    Delivery,
    Destination,
    DuplicateSuggestion,
    EnrichmentProvider,
    Fetch,
    Import,
    PersonMerge,
    ReplayRequest,
    Rerun,
    RoutingRule,
    Run,
    Team,
    Workspace,
)
from webapp.models.inbound import InboundSource
from webapp.models.judging import RulesetVersion
from webapp.models.suppression import Suppression

#: (least role, method, path); {lead} and so on are ids of the workspace.
DOORS = [
    (Role.VIEWER, "GET", "/queue"),
    (Role.VIEWER, "GET", "/queue/news"),
    (Role.VIEWER, "GET", "/queue/export.csv"),
    (Role.VIEWER, "GET", "/queue/{lead}"),
    (Role.VIEWER, "GET", "/runs"),
    (Role.VIEWER, "GET", "/runs/{run}"),
    (Role.VIEWER, "GET", "/reruns"),
    (Role.VIEWER, "GET", "/reruns/{rerun}"),
    (Role.MANAGER, "GET", "/reruns/new"),
    (Role.MANAGER, "POST", "/reruns"),
    (Role.MANAGER, "POST", "/reruns/{rerun}/cancel"),
    (Role.VIEWER, "GET", "/deliveries"),
    (Role.VIEWER, "GET", "/deliveries/{delivery}"),
    (Role.VIEWER, "GET", "/deliveries/dead"),
    (Role.VIEWER, "GET", "/deliveries/replays/{replay}"),
    (Role.VIEWER, "GET", "/settings"),
    (Role.VIEWER, "GET", "/settings/scoring"),
    (Role.MANAGER, "POST", "/settings/scoring"),
    (Role.MANAGER, "POST", "/settings/scoring/restore"),
    (Role.VIEWER, "GET", "/settings/suppression"),
    (Role.VIEWER, "GET", "/settings/suppression/export.csv"),
    (Role.MANAGER, "POST", "/settings/suppression"),
    (Role.MANAGER, "POST", "/settings/suppression/import"),
    (Role.MANAGER, "POST", "/settings/suppression/{suppression}/remove"),
    (Role.REVIEWER, "GET", "/queue/{lead}/override"),
    (Role.REVIEWER, "GET", "/queue/{lead}/reject"),
    (Role.REVIEWER, "POST", "/queue/{lead}/approve"),
    (Role.REVIEWER, "POST", "/queue/{lead}/override"),
    (Role.REVIEWER, "POST", "/queue/{lead}/reject"),
    (Role.REVIEWER, "POST", "/queue/{lead}/undo"),
    (Role.REVIEWER, "POST", "/queue/{lead}/assign"),
    (Role.REVIEWER, "POST", "/queue/{lead}/rerun"),
    (Role.REVIEWER, "POST", "/queue/{lead}/correct"),
    (Role.REVIEWER, "POST", "/queue/{lead}/duplicates/{suggestion}/merge"),
    (Role.REVIEWER, "POST", "/queue/{lead}/duplicates/{suggestion}/dismiss"),
    (Role.REVIEWER, "POST", "/queue/{lead}/merges/{merge}/undo"),
    (Role.REVIEWER, "POST", "/queue/{lead}/here"),
    (Role.REVIEWER, "POST", "/queue/{lead}/leave"),
    (Role.REVIEWER, "POST", "/queue/bulk"),
    (Role.MANAGER, "POST", "/settings"),
    (Role.VIEWER, "GET", "/settings/rules"),
    (Role.VIEWER, "GET", "/settings/rules/bench"),
    (Role.VIEWER, "GET", "/settings/rules/bench?lead={lead}"),
    (Role.VIEWER, "POST", "/settings/rules/bench"),
    (Role.MANAGER, "GET", "/settings/rules/effect"),
    (Role.MANAGER, "POST", "/settings/rules/phrases"),
    (Role.MANAGER, "POST", "/settings/rules/phrase"),
    (Role.MANAGER, "POST", "/settings/rules/versions/{ruleset}/activate"),
    (Role.MANAGER, "POST", "/settings/rules/shipped"),
    (Role.MANAGER, "POST", "/settings/rules/activate"),
    (Role.MANAGER, "POST", "/settings/rules/discard"),
    (Role.MANAGER, "GET", "/settings/judging"),
    (Role.MANAGER, "POST", "/settings/judging"),
    (Role.MANAGER, "POST", "/deliveries/{delivery}/replay"),
    (Role.MANAGER, "GET", "/deliveries/{delivery}/edit"),
    (Role.MANAGER, "POST", "/deliveries/{delivery}/edit"),
    (Role.MANAGER, "GET", "/deliveries/{delivery}/let-go"),
    (Role.MANAGER, "POST", "/deliveries/{delivery}/let-go"),
    (Role.MANAGER, "POST", "/deliveries/{delivery}/recorded/send"),
    (Role.MANAGER, "GET", "/deliveries/replays/new"),
    (Role.MANAGER, "POST", "/deliveries/replays"),
    (Role.MANAGER, "POST", "/deliveries/replays/{replay}/cancel"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/recorded/discard"),
    (Role.ADMIN, "GET", "/settings/members"),
    (Role.ADMIN, "POST", "/settings/members"),
    (Role.ADMIN, "POST", "/settings/members/{user}"),
    (Role.ADMIN, "POST", "/settings/members/{user}/remove"),
    (Role.ADMIN, "GET", "/settings/keys"),
    (Role.ADMIN, "POST", "/settings/keys"),
    (Role.ADMIN, "POST", "/settings/keys/{key}/revoke"),
    (Role.VIEWER, "GET", "/queue/{lead}/task-text"),
    (Role.REVIEWER, "POST", "/queue/{lead}/task-text"),
    (Role.REVIEWER, "POST", "/queue/{lead}/task-text/anew"),
    (Role.ADMIN, "POST", "/settings/copywriting"),
    (Role.ADMIN, "GET", "/settings/features"),
    (Role.ADMIN, "POST", "/settings/features/enableEnrichment"),
    (Role.ADMIN, "GET", "/settings/enrichment"),
    (Role.ADMIN, "POST", "/settings/enrichment"),
    (Role.ADMIN, "GET", "/settings/enrichment/new"),
    (Role.ADMIN, "POST", "/settings/enrichment/new"),
    (Role.ADMIN, "GET", "/settings/enrichment/{provider}"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}/try"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}/off"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}/on"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}/reset"),
    (Role.ADMIN, "POST", "/settings/enrichment/{provider}/remove"),
    (Role.ADMIN, "GET", "/settings/destinations"),
    (Role.ADMIN, "GET", "/settings/destinations/new/webhook"),
    (Role.ADMIN, "POST", "/settings/destinations/new/webhook"),
    (Role.ADMIN, "GET", "/settings/destinations/{destination}"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/off"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/shadow"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/live"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/test"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/read-back"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/read-back/now"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/secret"),
    (Role.ADMIN, "POST", "/settings/destinations/{destination}/remove"),
    (Role.ADMIN, "GET", "/settings/social-pages"),
    (Role.ADMIN, "POST", "/settings/social-pages"),
    (Role.ADMIN, "POST", "/settings/social-pages/facebook/{lead}/change"),
    (Role.ADMIN, "POST", "/settings/social-pages/facebook/{lead}/test"),
    (Role.ADMIN, "POST", "/settings/social-pages/facebook/{lead}/fetch"),
    (Role.ADMIN, "POST", "/settings/social-pages/facebook/{lead}/remove"),
    (Role.ADMIN, "POST", "/settings/social-pages/app-secret"),
    (Role.ADMIN, "POST", "/settings/social-pages/app-secret/remove"),
    (Role.MANAGER, "GET", "/quarantine"),
    (Role.MANAGER, "GET", "/quarantine/{held}"),
    (Role.MANAGER, "POST", "/quarantine/{held}/replay"),
    (Role.MANAGER, "POST", "/quarantine/{held}/discard"),
    (Role.MANAGER, "POST", "/quarantine/{held}/restore"),
    (Role.MANAGER, "POST", "/quarantine/bulk"),
    (Role.ADMIN, "GET", "/settings/inbound"),
    (Role.ADMIN, "POST", "/settings/inbound"),
    (Role.ADMIN, "GET", "/settings/inbound/{source}"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/preview"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/mapping"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/proof"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/limits"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/off"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/on"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/rotate"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/replay"),
    (Role.ADMIN, "POST", "/settings/inbound/{source}/delete"),
    (Role.VIEWER, "GET", "/imports"),
    (Role.VIEWER, "GET", "/imports/{import}"),
    (Role.VIEWER, "GET", "/imports/{import}/errors.csv"),
    (Role.MANAGER, "GET", "/imports/new"),
    (Role.MANAGER, "POST", "/imports"),
    (Role.MANAGER, "GET", "/imports/{import}/columns"),
    (Role.MANAGER, "POST", "/imports/{import}/columns"),
    (Role.MANAGER, "POST", "/imports/{import}/layout"),
    (Role.MANAGER, "POST", "/imports/{import}/start"),
    (Role.MANAGER, "POST", "/imports/{import}/cancel"),
    (Role.MANAGER, "GET", "/imports/{import}/undo"),
    (Role.MANAGER, "POST", "/imports/{import}/undo"),
    (Role.VIEWER, "GET", "/settings/hours"),
    (Role.MANAGER, "POST", "/settings/hours"),
    (Role.VIEWER, "GET", "/settings/routing"),
    (Role.MANAGER, "GET", "/settings/routing/trial"),
    (Role.MANAGER, "POST", "/settings/routing/otherwise"),
    (Role.MANAGER, "GET", "/settings/routing/rules/new"),
    (Role.MANAGER, "POST", "/settings/routing/rules/new"),
    (Role.MANAGER, "GET", "/settings/routing/rules/{rule}"),
    (Role.MANAGER, "POST", "/settings/routing/rules/{rule}"),
    (Role.MANAGER, "POST", "/settings/routing/rules/{rule}/move"),
    (Role.MANAGER, "POST", "/settings/routing/rules/{rule}/delete"),
    (Role.MANAGER, "GET", "/settings/routing/teams/new"),
    (Role.MANAGER, "POST", "/settings/routing/teams/new"),
    (Role.MANAGER, "GET", "/settings/routing/teams/{team}"),
    (Role.MANAGER, "POST", "/settings/routing/teams/{team}"),
    (Role.MANAGER, "POST", "/settings/routing/teams/{team}/delete"),
    (Role.MANAGER, "GET", "/settings/routing/members/{user}"),
    (Role.MANAGER, "POST", "/settings/routing/members/{user}"),
    (Role.MANAGER, "POST", "/settings/routing/members/{user}/absences"),
    (Role.MANAGER, "POST", "/settings/routing/absences/{absence}/remove"),
    (Role.ADMIN, "GET", "/alerts"),
    (Role.ADMIN, "POST", "/alerts/{alert}/acknowledge"),
    (Role.ADMIN, "POST", "/alerts/{alert}/resolve"),
    (Role.ADMIN, "GET", "/settings/web-pages"),
    (Role.ADMIN, "POST", "/settings/web-pages"),
    (Role.ADMIN, "POST", "/settings/web-pages/{page}/again"),
    (Role.ADMIN, "POST", "/settings/web-pages/{page}/remove"),
]
OPEN = {"documentation.index", "auth.home", "auth.login", "auth.log_in", "auth.log_out", "auth.switch_workspace"}


def ids_of(session: Session, workspace: Workspace) -> dict[str, uuid.UUID]:
    """One of everything in the workspace."""
    lead = make_lead(session, workspace)
    make_key(session, workspace)
    hook = Destination(
        workspace_id=workspace.id, kind=DestinationKind.WEBHOOK, name="hook", config={"url": "https://a.example"}
    )
    session.add(hook)
    session.flush()
    delivery = Delivery(workspace_id=workspace.id, lead_id=lead.id, destination_id=hook.id, action="lead.approved")
    session.add(delivery)
    other = make_lead(session, workspace)
    pair = sorted([lead.person_id, other.person_id])
    suggestion = DuplicateSuggestion(workspace_id=workspace.id, person_a_id=pair[0], person_b_id=pair[1], score=0.9)
    merged = make_lead(session, workspace).person_id
    merge = PersonMerge(workspace_id=workspace.id, kept_id=lead.person_id, merged_id=merged, actor="Ana Torres")
    session.add_all([suggestion, merge])
    page = Fetch(workspace_id=workspace.id, kind=FetchKind.PAGE, target="https://a.example/contact")
    session.add(page)
    file = Import(workspace_id=workspace.id, filename="a.csv", format="csv", created_by="somebody")
    session.add(file)
    rerun = Rerun(workspace_id=workspace.id, lead_ids=[lead.id], total=1, requested_by="somebody")
    session.add(rerun)
    replay = ReplayRequest(workspace_id=workspace.id, total=1, requested_by="somebody")
    session.add(replay)
    held = quarantine(session, workspace.id, Door.SOCIAL, "facebook", Bad("unreadable", {}))
    suppressed = Suppression(
        workspace_id=workspace.id, kind="test", match="domain", value="a.example", key="a.example", added_by="somebody"
    )
    session.add(suppressed)
    source = InboundSource(workspace_id=workspace.id, name="Form", token="enc:x", token_hash=workspace.id.bytes)
    session.add(source)
    team = Team(workspace_id=workspace.id, name="North")
    session.add(team)
    session.flush()
    rule = RoutingRule(workspace_id=workspace.id, position=1, name="All", team_id=team.id)
    session.add(rule)
    away = make_user(session, workspace)
    day = date(2030, 1, 1)
    absence = Absence(workspace_id=workspace.id, user_id=away.id, first_day=day, last_day=day)
    session.add(absence)
    service = EnrichmentProvider(
        workspace_id=workspace.id, subject=LookupSubject.DOMAIN, name="DataCo", url="https://data.example/{domain}",
        mapping={"company_name": "name"},
    )  # fmt: skip
    session.add(service)
    raise_alert(session, workspace.id, "routing_nobody", "", "Nobody fits.")
    ruleset = RulesetVersion(
        workspace_id=workspace.id, number=1, base="1", created_by="Ana", updated_by="Ana", activated_by="Ana",
        activated_at=sa.func.now(),
    )  # fmt: skip
    session.add(ruleset)
    session.commit()
    return {
        "ruleset": ruleset.id,
        "team": team.id,
        "rule": rule.id,
        "absence": absence.id,
        "alert": session.scalars(sa.select(Alert.id).where(Alert.workspace_id == workspace.id)).one(),
        "provider": service.id,
        "page": page.id,
        "suppression": suppressed.id,
        "import": file.id,
        "held": held.id,
        "source": source.id,
        "suggestion": suggestion.id,
        "merge": merge.id,
        "lead": lead.id,
        "rerun": rerun.id,
        "replay": replay.id,
        "run": session.scalars(sa.select(Run.id).where(Run.lead_id == lead.id)).one(),
        "key": session.scalars(sa.select(ApiKey.id).where(ApiKey.workspace_id == workspace.id)).one(),
        "destination": hook.id,
        "delivery": delivery.id,
        "user": make_user(session, workspace).id,
    }


def test_every_page_stands_in_the_table(app: Flask) -> None:
    listed = {(method, path.replace("{", "<").split("<")[0], path.count("{")) for _, method, path in DOORS}
    pages = (
        "queue.",
        "lead.",
        "decisions.",
        "people.",
        "export.",
        "runs.",
        "deliveries.",
        "dead_letters.",
        "settings.",
        "rules.",
        "judging.",
        "members.",
        "keys.",
        "destinations.",
        "sources.",
        "quarantine.",
        "social_pages.",
        "webpages.",
        "imports.",
        "alerts.",
        "features.",
        "task_texts.",
        "reruns.",
        "routing.",
        "hours.",
        "enrichment.",
    )
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith(pages) and rule.endpoint not in OPEN:
            view = app.view_functions[rule.endpoint]
            assert hasattr(view, "required_role"), rule.endpoint
            for method in rule.methods & {"GET", "POST"}:
                assert any(m == method and str(rule).startswith(p.rstrip("/")) for m, p, _ in listed), rule


@pytest.mark.parametrize("role", list(Role))
def test_each_role_reaches_what_it_may_and_no_more(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any], role: Role
) -> None:
    login(client, role)
    ids = ids_of(session, workspace)
    for least, method, path in DOORS:
        answer = client.open(path.format(**ids), method=method)
        answer.get_data()
        if role.includes(least):
            assert answer.status_code not in (401, 403), (method, path, answer.status_code)
        else:
            assert answer.status_code == 403, (method, path, answer.status_code)


def test_strangers_are_sent_to_the_log_in_page(client: FlaskClient, session: Session, workspace: Workspace) -> None:
    ids = ids_of(session, workspace)
    for _, method, path in DOORS:
        answer = client.open(path.format(**ids), method=method)
        assert answer.status_code == 302 and answer.location.startswith("/login"), (method, path)


def test_another_workspaces_ids_do_not_exist(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    theirs = ids_of(session, make_workspace(session))
    for _, method, path in DOORS:
        if "{" in path:
            data = {"version": "1", "intent": "spam", "priority": "P0", "reject_reason": "spam", "role": "viewer"}
            answer = client.open(path.format(**theirs), method=method, data=data if method == "POST" else None)
            assert answer.status_code == 404, (method, path, answer.status_code)


def test_another_workspaces_leads_are_untouched_by_bulk(
    client: FlaskClient, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    login(client, Role.ADMIN)
    theirs = make_lead(session, make_workspace(session))
    answer = client.post("/queue/bulk", data={"lead": f"{theirs.id}:1", "action": "approve"})
    assert "no such lead" in answer.text
    session.refresh(theirs)
    assert theirs.decided_at is None


def test_controls_that_a_role_may_not_use_are_not_shown(
    app: Flask, session: Session, workspace: Workspace, login: Callable[..., Any]
) -> None:
    lead = make_lead(session, workspace)
    shown = {}
    for role in Role:
        client = app.test_client()
        login(client, role)
        shown[role] = client.get(f"/queue/{lead.id}").text + client.get("/settings").text
    assert "/approve" not in shown[Role.VIEWER] and 'name="lead"' not in shown[Role.VIEWER]
    assert "/approve" in shown[Role.REVIEWER]
    assert "disabled" in shown[Role.REVIEWER] and 'class="btn go">Save' in shown[Role.MANAGER]
    assert "/settings/members" not in shown[Role.MANAGER] and "/settings/members" in shown[Role.ADMIN]
