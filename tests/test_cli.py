"""``script/flask`` commands: what they print is read by scripts."""

import uuid

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.models import ApiKey, Membership, User, Workspace
from webapp.security.passwords import check_password


def run(app: Flask, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
    result = app.test_cli_runner().invoke(args=list(arguments), input=stdin)
    return result.exit_code, result.output.strip()


def test_create_workspace_prints_its_uuid_alone(app: Flask) -> None:
    code, said = run(app, "create-workspace", "Acme")
    assert code == 0 and uuid.UUID(said)
    assert run(app, "create-workspace", "Acme") == (0, said)


def test_create_user_reads_the_password_and_prints_nothing(app: Flask, workspace: Workspace, session: Session) -> None:
    said = run(
        app, "create-user", "Ana@Example.com", "--role", "reviewer", "--password-stdin", stdin="a good password\n"
    )
    assert said == (0, "")
    user = session.scalars(sa.select(User)).one()
    assert user.email == "ana@example.com" and check_password(user.password_hash, "a good password")
    assert session.scalars(sa.select(Membership)).one().role == "reviewer"
    assert run(
        app, "create-user", "ana@example.com", "--role", "admin", "--password-stdin", stdin="another one 2\n"
    ) == (0, "")
    session.expire_all()
    assert session.scalars(sa.select(User)).one().session_epoch == 1
    assert session.scalars(sa.select(Membership)).one().role == "admin"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("nobody", "--role", "viewer"), "long enough password\n", "not an e-mail"),
        (("a@example.com", "--role", "viewer"), "short\n", "at least 10"),
        (("a@example.com", "--role", "owner"), "long enough password\n", "owner"),
        (("a@example.com", "--role", "viewer", "--workspace", "nowhere"), "long enough password\n", "nowhere"),
    ],
)
def test_create_user_refuses(
    app: Flask, workspace: Workspace, session: Session, arguments: tuple[str, ...], stdin: str, said: str
) -> None:
    code, output = run(app, "create-user", *arguments, "--password-stdin", stdin=stdin)
    assert code != 0 and said in output and "Traceback" not in output
    assert session.scalar(sa.select(sa.func.count()).select_from(User)) == 0


def test_create_key_prints_a_working_key_alone(
    app: Flask, client: FlaskClient, workspace: Workspace, session: Session
) -> None:
    code, key = run(
        app, "create-key", "--workspace", "default", "--name", "n8n", "--scopes", "ingest,read", "--rate-limit", "none"
    )
    assert code == 0 and "\n" not in key
    assert client.get("/leads/", headers={"X-API-Key": key}).status_code == 200
    stored = session.scalars(sa.select(ApiKey)).one()
    assert stored.scopes == ["ingest", "read"] and stored.rate_limited is False and key.encode() not in stored.key_hash
    assert run(app, "create-key", "--name", "x", "--scopes", "everything")[0] != 0
    assert run(app, "create-key", "--name", "x", "--scopes", "platform,read")[0] != 0


def test_bootstrap_makes_everything_once(app: Flask, session: Session) -> None:
    code, first = run(app, "bootstrap")
    assert code == 0 and '"created": true' in first and "lo_" in first
    code, second = run(app, "bootstrap")
    assert code == 0 and '"created": false' in second and "lo_" not in second
    assert session.scalar(sa.select(sa.func.count()).select_from(User)) == 1
    assert session.scalar(sa.select(sa.func.count()).select_from(ApiKey)) == 1
