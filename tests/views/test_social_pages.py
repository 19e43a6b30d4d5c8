"""Settings, social pages: mapping, tokens and their tests, the app secret; and the same from the command line."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from tests import factories
from tests.conftest import environment
from tests.fakes.graph import TOKEN, GraphFake, Token
from tests.meta import page_body, signed
from webapp import create_app
from webapp.config import ConfigError, load_settings
from webapp.leads.states import FetchKind, FetchState, Role
from webapp.models import AuditEvent, Fetch, SocialPage, Workspace, db

PAGES = "/settings/social-pages"
APP_SECRET = "an app secret".replace(" ", "-") + "-of-some-length"
COMMENT = {"field": "feed", "value": {"item": "comment", "verb": "add", "comment_id": "c1", "message": "price?"}}


@pytest.fixture
def graph() -> Iterator[GraphFake]:
    with GraphFake() as fake:
        fake.tokens[TOKEN] = Token(("1001",), expires_at=int(datetime(2027, 3, 1, 9, tzinfo=UTC).timestamp()))
        yield fake


@pytest.fixture
def meta_app(app: Flask, database_url: str, redis_url: str, graph: GraphFake) -> Iterator[Flask]:
    """The app, with Graph where the stand-in is."""
    given = environment(
        database_url,
        redis_url,
        META_GRAPH_URL=graph.url + "/",
        META_VERIFY_TOKEN="verify-me",
        PUBLIC_URL="http://leads.example",
    )
    made = create_app(load_settings(given))
    made.config.update(TESTING=True, WTF_CSRF_ENABLED=False)
    yield made
    with made.app_context():
        db.engine.dispose()
    made.extensions["autocommit"].dispose()


@pytest.fixture
def admin(meta_app: Flask, login: Callable[..., Any]) -> FlaskClient:
    """Logged in as an admin."""
    client = meta_app.test_client()
    login(client, Role.ADMIN, name="Ada Min")
    return client


def add(client: FlaskClient, page_id: str = "1001", **over: str) -> Any:
    given = {"platform": "facebook", "page_id": page_id, "name": "Our shop", "token": TOKEN} | over
    return client.post(PAGES, data=given, follow_redirects=True)


def the_page(session: Session) -> SocialPage:
    session.rollback()
    return session.scalars(sa.select(SocialPage).execution_options(populate_existing=True)).one()


def events(session: Session) -> list[str]:
    session.rollback()
    return list(session.scalars(sa.select(AuditEvent.event_type).order_by(AuditEvent.xid, AuditEvent.id)))


def test_nothing_yet_and_what_meta_asks_for(admin: FlaskClient) -> None:
    shown = admin.get(PAGES).text
    assert "No pages yet" in shown
    assert "http://leads.example/webhooks/facebook" in shown and "http://leads.example/webhooks/whatsapp" in shown
    assert "verify-me" in shown


def test_without_the_operator_s_settings_it_says_so(client: FlaskClient, login: Callable[..., Any]) -> None:
    login(client, Role.ADMIN)
    shown = client.get(PAGES).text
    assert "the operator sets META_VERIFY_TOKEN" in shown and "the operator sets PUBLIC_URL" in shown
    assert "http://localhost/webhooks/facebook" in shown


def test_a_page_is_added_and_its_token_never_shown(admin: FlaskClient, session: Session, workspace: Workspace) -> None:
    added = add(admin)
    assert added.status_code == 200 and "Our shop" in added.text and "not tested yet" in added.text
    assert TOKEN not in added.text and TOKEN not in admin.get(PAGES).text
    page = the_page(session)
    assert (page.platform, page.page_id, page.workspace_id) == ("facebook", "1001", workspace.id)
    assert page.access_token is not None and TOKEN not in page.access_token
    assert events(session) == ["SOCIAL_PAGE_ADDED"]
    assert TOKEN not in json.dumps(session.scalars(sa.select(AuditEvent.details)).one())


def test_it_takes_effect_at_once(admin: FlaskClient, workspace: Workspace, headers: dict[str, str]) -> None:
    assert signed(admin, page_body(COMMENT, page="1001"), secret=APP_SECRET).status_code == 401
    saved = admin.post(f"{PAGES}/app-secret", data={"app_secret": APP_SECRET}, follow_redirects=True)
    assert "Saved" in saved.text and APP_SECRET not in saved.text and "Replace" in saved.text
    assert signed(admin, page_body(COMMENT, page="1001"), secret=APP_SECRET).status_code == 400  # whose page?
    add(admin)
    assert signed(admin, page_body(COMMENT, page="1001"), secret=APP_SECRET).json["created"] == 1
    admin.post(f"{PAGES}/facebook/1001/remove")
    assert signed(admin, page_body(COMMENT, page="1001"), secret=APP_SECRET).status_code == 400
    admin.post(f"{PAGES}/app-secret/remove")
    assert signed(admin, page_body(COMMENT, page="1001"), secret=APP_SECRET).status_code == 401


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"platform": "myspace"}, "must be one of"),
        ({"page_id": ""}, "must be the id that Meta shows"),
        ({"page_id": "../me"}, "must be the id that Meta shows"),
        ({"page_id": "1" * 65}, "must be the id that Meta shows"),
        ({"name": "x" * 121}, "at most 120 characters"),
        ({"token": "short"}, "without spaces"),
        ({"token": "with spaces in it, and long enough"}, "without spaces"),
        ({"token": "x" * 1_001}, "without spaces"),
    ],
)
def test_what_cannot_be_added(admin: FlaskClient, session: Session, over: dict[str, str], words: str) -> None:
    refused = add(admin, **over)
    assert refused.status_code == 422 and words in refused.text
    assert session.scalar(sa.select(sa.func.count()).select_from(SocialPage)) == 0
    assert f'"{over.get("token", TOKEN)}"' not in refused.text


def test_a_page_of_another_workspace_is_refused_without_saying_whose(admin: FlaskClient, session: Session) -> None:
    other = factories.make_workspace(session, "Rival Ltd")
    session.add(SocialPage(platform="facebook", page_id="1001", workspace_id=other.id))
    session.commit()
    refused = add(admin)
    assert refused.status_code == 409 and "belongs to another workspace" in refused.text
    assert "Rival" not in refused.text and str(other.id) not in refused.text
    assert 'value="1001"' in refused.text  # nothing has to be typed again
    assert add(admin, platform="whatsapp").status_code == 200  # the same id elsewhere is another page
    assert "in the list already" in add(admin, platform="whatsapp").text


def test_a_token_is_tested(admin: FlaskClient, session: Session, graph: GraphFake) -> None:
    add(admin)
    tested = admin.post(f"{PAGES}/facebook/1001/test", follow_redirects=True).text
    assert "The token works" in tested and "until 1 Mar 2027, 09:00:00 UTC" in tested
    graph.tokens[TOKEN].valid = False
    tested = admin.post(f"{PAGES}/facebook/1001/test", follow_redirects=True).text
    assert (
        "The token does not work" in tested and "connect the page again" in tested and "does not work</span>" in tested
    )
    assert the_page(session).token_problem
    graph.tokens[TOKEN] = Token(("1001",), scopes=())
    tested = admin.post(f"{PAGES}/facebook/1001/test", follow_redirects=True).text
    assert "no end is known" in tested and "leads_retrieval" in tested
    assert the_page(session).token_problem is None


def test_a_test_that_cannot_be_made_changes_nothing(admin: FlaskClient, session: Session, graph: GraphFake) -> None:
    add(admin)
    graph.fail_next(kind="reset_before")
    tested = admin.post(f"{PAGES}/facebook/1001/test", follow_redirects=True).text
    assert "Not tested" in tested and "Nothing has changed" in tested
    assert the_page(session).token_checked_at is None
    add(admin, "1002", token="")
    assert "has no access token" in admin.post(f"{PAGES}/facebook/1002/test", follow_redirects=True).text
    session.execute(sa.update(SocialPage).values(access_token="enc:of a key that is gone"))
    session.commit()
    assert "enter it again" in admin.post(f"{PAGES}/facebook/1001/test", follow_redirects=True).text


def test_a_new_token_fetches_what_waited(
    admin: FlaskClient, session: Session, workspace: Workspace, graph: GraphFake
) -> None:
    add(admin, token="")
    change = {"field": "leadgen", "value": {"leadgen_id": "7", "page_id": "1001"}}
    for target, state in (("7", FetchState.DEAD), ("8", FetchState.DEAD), ("9", FetchState.DONE)):
        session.add(
            Fetch(workspace_id=workspace.id, kind=FetchKind.LEADGEN, target=target, payload=change, state=state)
        )
    session.commit()
    shown = admin.get(PAGES).text
    assert '<span class="num">2</span>' in shown and "lead forms cannot be fetched" in shown
    saved = admin.post(f"{PAGES}/facebook/1001/change", data={"name": "Shop", "token": TOKEN}, follow_redirects=True)
    assert "2 forms that waited are fetched now" in saved.text and TOKEN not in saved.text
    session.rollback()
    states = dict(session.execute(sa.select(Fetch.target, Fetch.state)).all())
    assert states == {"7": FetchState.PENDING, "8": FetchState.PENDING, "9": FetchState.DONE}
    assert the_page(session).name == "Shop"
    assert events(session)[-1] == "SOCIAL_PAGE_CHANGED"
    assert "no form waits" in admin.post(f"{PAGES}/facebook/1001/fetch", follow_redirects=True).text
    session.execute(sa.update(Fetch).values(state=FetchState.DEAD))
    session.commit()
    assert "3 forms that waited" in admin.post(f"{PAGES}/facebook/1001/fetch", follow_redirects=True).text


def test_a_name_alone_keeps_the_token(admin: FlaskClient, session: Session) -> None:
    add(admin)
    before = the_page(session).access_token
    admin.post(f"{PAGES}/facebook/1001/change", data={"name": "Renamed", "token": ""})
    assert (the_page(session).name, the_page(session).access_token) == ("Renamed", before)
    said = len(events(session))
    admin.post(f"{PAGES}/facebook/1001/change", data={"name": "Renamed", "token": ""})
    assert len(events(session)) == said  # nothing was changed
    refused = admin.post(f"{PAGES}/facebook/1001/change", data={"name": "Again", "token": "bad token"})
    assert refused.status_code == 422 and "without spaces" in refused.text and 'value="Again"' in refused.text
    assert the_page(session).name == "Renamed"


def test_removing_keeps_the_trail(admin: FlaskClient, session: Session) -> None:
    add(admin)
    assert "Removed" in admin.post(f"{PAGES}/facebook/1001/remove", follow_redirects=True).text
    assert session.scalar(sa.select(sa.func.count()).select_from(SocialPage)) == 0
    assert events(session) == ["SOCIAL_PAGE_ADDED", "SOCIAL_PAGE_REMOVED"]
    assert admin.post(f"{PAGES}/facebook/1001/remove").status_code == 404


@pytest.mark.parametrize("secret", ["", "   ", "short", "with spaces, and long enough", "x" * 201])
def test_what_is_no_app_secret(admin: FlaskClient, session: Session, workspace: Workspace, secret: str) -> None:
    assert admin.post(f"{PAGES}/app-secret", data={"app_secret": secret}).status_code == 422
    session.refresh(workspace)
    assert workspace.meta_app_secret is None


def test_the_app_secret_is_audited_and_encrypted(admin: FlaskClient, session: Session, workspace: Workspace) -> None:
    admin.post(f"{PAGES}/app-secret", data={"app_secret": APP_SECRET})
    session.refresh(workspace)
    assert workspace.meta_app_secret and APP_SECRET not in workspace.meta_app_secret
    admin.post(f"{PAGES}/app-secret/remove")
    admin.post(f"{PAGES}/app-secret/remove")
    assert events(session) == ["META_SECRET_SET", "META_SECRET_REMOVED"]


@pytest.mark.parametrize("version", ["24.0", "v24", "v24.0/../me", "latest", "v0.1"])
def test_a_version_that_is_none_is_refused(database_url: str, redis_url: str, version: str) -> None:
    with pytest.raises(ConfigError, match="META_GRAPH_VERSION"):
        load_settings(environment(database_url, redis_url, META_GRAPH_VERSION=version))
    with pytest.raises(ConfigError, match="META_GRAPH_URL"):
        load_settings(environment(database_url, redis_url, META_GRAPH_URL="graph.facebook.com"))


def run(app: Flask, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=["social-pages", *arguments], input=stdin)
    return result.exit_code, result.output.strip()


def test_the_command_line(app: Flask, session: Session, workspace: Workspace) -> None:
    assert run(app, "add", "facebook", "1001", "--name", "Our shop", "--token-stdin", stdin=TOKEN + "\n") == (0, "")
    factories.make_workspace(session, "Acme")
    assert run(app, "add", "whatsapp", "2002", "--workspace", "Acme") == (0, "")
    code, said = run(app, "add", "facebook", "1001", "--workspace", "Acme")
    assert code == 1 and "belongs to another workspace" in said
    assert run(app, "list")[1].splitlines() == [
        "whatsapp\t2002\tAcme\tno\t",
        "facebook\t1001\tdefault\tyes\tOur shop",
    ]
    assert the_page_of(session, "1001").access_token not in (None, TOKEN)
    code, said = run(app, "remove", "facebook", "1001", "--workspace", "Acme")
    assert code == 1 and "no such page" in said
    assert run(app, "remove", "facebook", "1001") == (0, "")
    assert run(app, "list")[1] == "whatsapp\t2002\tAcme\tno"
    assert events(session) == ["SOCIAL_PAGE_ADDED", "SOCIAL_PAGE_ADDED", "SOCIAL_PAGE_REMOVED"]


def the_page_of(session: Session, page_id: str) -> SocialPage:
    session.rollback()
    return session.get_one(SocialPage, ("facebook", page_id))
