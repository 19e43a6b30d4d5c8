"""``flask`` commands: workspaces, users, keys. Each prints just what a script wants to read."""

import contextlib
import json
import secrets
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click
import sqlalchemy as sa
from flask import Flask, current_app

from webapp.cli_classify import classify, pack_rules
from webapp.cli_dedupe import dedupe
from webapp.config import Settings, config_table
from webapp.extensions import db
from webapp.leads import destinations, members, workspaces
from webapp.leads.dedupe import normalize_email
from webapp.leads.errors import LeadError
from webapp.leads.states import Role, Scope
from webapp.models.account import ApiKey, Membership, User, Workspace
from webapp.security.keys import create_key
from webapp.security.passwords import MIN_LENGTH, hash_password
from webapp.security.ratelimit import Limits

#: Who did it, in the audit log.
ACTOR = "the operator"


def committed(command: Callable[..., Any]) -> Callable[..., Any]:
    """One transaction per command; a domain error becomes one line and exit 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            said = command(*args, **kwargs)
            db.session.commit()
        except LeadError as error:
            raise click.ClickException(error.message) from None
        if said is not None:
            click.echo(said)

    return run


def find_workspace(name: str) -> Workspace:
    """By name, or by id. ClickException when there is none."""
    workspace = db.session.scalar(sa.select(Workspace).where(Workspace.name == name))
    if workspace is None:
        with contextlib.suppress(ValueError):
            workspace = db.session.get(Workspace, uuid.UUID(name))
    if workspace is None:
        raise click.ClickException(f"there is no workspace '{name}'")
    return workspace


def add_user(email: str, password: str, role: Role, workspace: Workspace, *, name: str | None = None) -> User:
    """A user with a role in the workspace; an existing user gets the password and the role.

    ClickException for an unusable address or a short password.
    """
    address = email.strip().lower()
    if not members.usable(address):
        raise click.ClickException(f"'{email}' is not an e-mail address")
    address = normalize_email(address) or address
    if len(password) < MIN_LENGTH:
        raise click.ClickException(f"the password must have at least {MIN_LENGTH} characters")
    user = members.user_by_address(db.session, address)
    hashed = hash_password(password)
    if user is None:
        local = email.strip().lower().partition("@")[0]
        user = members.new_user(db.session, address, name=name or local.replace(".", " ").title(), password_hash=hashed)
    else:
        user.session_epoch += 1  # a new password ends the old sessions
        user.password_hash, user.active = hashed, True
    members.grant(db.session, workspace.id, user, role)
    return user


def register(app: Flask) -> None:
    """Add the commands."""
    from webapp.cli_social import group as social_pages  # which is made of what stands above

    app.cli.add_command(classify)
    app.cli.add_command(pack_rules)
    app.cli.add_command(dedupe)
    app.cli.add_command(social_pages)

    @app.cli.command("create-workspace")
    @click.argument("name")
    @click.option("--industry")
    @committed
    def create_workspace(name: str, industry: str | None) -> str:
        """Make a workspace and print its UUID (the existing one's when the name is taken)."""
        if not name.strip():
            raise click.ClickException("a workspace needs a name")
        made, _ = workspaces.ensure(db.session(), name.strip(), industry=industry, actor=ACTOR)
        return str(made)

    @app.cli.command("create-user")
    @click.argument("email")
    @click.option("--role", type=click.Choice([r.value for r in Role]), required=True)
    @click.option("--workspace", default=destinations.DEFAULT_WORKSPACE, show_default=True)
    @click.option("--name", help="As shown to others; made from the address if left out.")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    @committed
    def create_user(email: str, role: str, workspace: str, name: str | None, password_stdin: bool) -> str | None:
        """Make a user (or give an existing one the role and password). Without --password-stdin a random password is
        made and printed."""
        password = sys.stdin.readline().rstrip("\r\n") if password_stdin else secrets.token_urlsafe(12)
        add_user(email, password, Role(role), find_workspace(workspace), name=name)
        return None if password_stdin else password

    @app.cli.command("create-key")
    @click.option("--workspace", default=destinations.DEFAULT_WORKSPACE, show_default=True)
    @click.option("--name", required=True)
    @click.option("--scopes", required=True, help="Comma-separated: ingest, read, review, admin; or platform alone.")
    @click.option("--rate-limit", type=click.Choice(["default", "none"]), default="default", show_default=True)
    @click.option(
        "--limit-max", type=click.IntRange(0), help="Requests per window instead of RATE_LIMIT_MAX; 0: no limit."
    )
    @click.option("--limit-burst", type=click.IntRange(0), help="Requests per second instead of RATE_LIMIT_BURST.")
    @click.option("--limit-day", type=click.IntRange(0), help="Requests per day instead of RATE_LIMIT_PER_DAY.")
    @click.option("--expires", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]), help="When it ends, in UTC.")
    @committed
    def new_key(
        workspace: str,
        name: str,
        scopes: str,
        rate_limit: str,
        limit_max: int | None,
        limit_burst: int | None,
        limit_day: int | None,
        expires: datetime | None,
    ) -> str:
        """Make an API key and print it. It cannot be shown again."""
        try:
            wanted = {Scope(scope.strip()) for scope in scopes.split(",") if scope.strip()}
        except ValueError:
            raise click.ClickException("scopes are: " + ", ".join(Scope)) from None
        owner = None if wanted == {Scope.PLATFORM} else find_workspace(workspace).id
        return create_key(
            db.session,
            workspace_id=owner,
            name=name,
            scopes=wanted,
            rate_limited=rate_limit != "none",
            limits=Limits(limit_max, limit_burst, limit_day),
            expires_at=expires.replace(tzinfo=UTC) if expires else None,
        )[1]

    @app.cli.command("bootstrap", hidden=True)
    @committed
    def bootstrap() -> str:
        """What a first start needs; does nothing twice. Prints one line of JSON for script/server."""
        return json.dumps(first_start(current_app.extensions["settings"]))

    @app.cli.command("config-table", hidden=True)
    def table() -> None:
        """The README's configuration table."""
        click.echo(config_table())


def first_start(settings: Settings) -> dict[str, Any]:
    """Workspace ``default``, an admin, a key with all scopes, the destinations of the environment."""
    made, _ = workspaces.ensure(db.session(), destinations.DEFAULT_WORKSPACE, actor=ACTOR)
    workspace = db.session.get_one(Workspace, made)
    # One process at a time: two first starts side by side must not make two admins.
    db.session.execute(sa.select(Workspace.id).where(Workspace.id == workspace.id).with_for_update())
    destinations.sync_environment(db.session, settings, current_app.extensions["cipher"])
    said: dict[str, Any] = {
        "created": False,
        "admin_email": settings.admin_email,
        "admin_password": None,
        "api_key": None,
    }
    has_admin = db.session.scalar(sa.select(sa.exists().where(Membership.role == Role.ADMIN)))
    if not has_admin:
        given = settings.admin_password.get_secret_value() if settings.admin_password else None
        password = given or secrets.token_urlsafe(12)
        add_user(settings.admin_email, password, Role.ADMIN, workspace, name="Admin")
        said |= {"created": True, "admin_password": None if given else password}
    if not db.session.scalar(sa.select(sa.exists().where(ApiKey.workspace_id == workspace.id))):
        scopes = {Scope.INGEST, Scope.READ, Scope.REVIEW, Scope.ADMIN}
        said["api_key"] = create_key(db.session, workspace_id=workspace.id, name="first key", scopes=scopes)[1]
    return said
