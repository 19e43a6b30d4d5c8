"""``flask`` commands: workspaces, users, keys. Each prints just what a script wants to read."""

import contextlib
import json
import secrets
import sys
import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import sqlalchemy as sa
from flask import Flask, current_app

from webapp.config import Settings, config_table
from webapp.extensions import db
from webapp.leads import destinations, members
from webapp.leads.dedupe import normalize_email
from webapp.leads.errors import LeadError
from webapp.leads.states import Role, Scope
from webapp.models.account import ApiKey, Membership, User, Workspace
from webapp.security.keys import create_key
from webapp.security.passwords import MIN_LENGTH, hash_password


def _committed(command: Callable[..., Any]) -> Callable[..., Any]:
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


def ensure_workspace(name: str, *, industry: str | None = None) -> Workspace:
    """The workspace of this name, made if there is none; safe when called side by side."""
    db.session.execute(
        sa.dialects.postgresql.insert(Workspace)
        .values(id=uuid.uuid4(), name=name, industry=industry)
        .on_conflict_do_nothing(index_elements=[Workspace.name])
    )
    return find_workspace(name)


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

    @app.cli.command("create-workspace")
    @click.argument("name")
    @click.option("--industry")
    @_committed
    def create_workspace(name: str, industry: str | None) -> str:
        """Make a workspace and print its UUID (the existing one's when the name is taken)."""
        if not name.strip():
            raise click.ClickException("a workspace needs a name")
        return str(ensure_workspace(name.strip(), industry=industry).id)

    @app.cli.command("create-user")
    @click.argument("email")
    @click.option("--role", type=click.Choice([r.value for r in Role]), required=True)
    @click.option("--workspace", default=destinations.DEFAULT_WORKSPACE, show_default=True)
    @click.option("--name", help="As shown to others; made from the address if left out.")
    @click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    @_committed
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
    @_committed
    def new_key(workspace: str, name: str, scopes: str, rate_limit: str) -> str:
        """Make an API key and print it. It cannot be shown again."""
        try:
            wanted = {Scope(scope.strip()) for scope in scopes.split(",") if scope.strip()}
        except ValueError:
            raise click.ClickException("scopes are: " + ", ".join(Scope)) from None
        owner = None if wanted == {Scope.PLATFORM} else find_workspace(workspace).id
        return create_key(db.session, workspace_id=owner, name=name, scopes=wanted, rate_limited=rate_limit != "none")[
            1
        ]

    @app.cli.command("bootstrap", hidden=True)
    @_committed
    def bootstrap() -> str:
        """What a first start needs; does nothing twice. Prints one line of JSON for script/server."""
        return json.dumps(first_start(current_app.extensions["settings"]))

    @app.cli.command("config-table", hidden=True)
    def table() -> None:
        """The README's configuration table."""
        click.echo(config_table())


def first_start(settings: Settings) -> dict[str, Any]:
    """Workspace ``default``, an admin, a key with all scopes, the destinations of the environment."""
    workspace = ensure_workspace(destinations.DEFAULT_WORKSPACE)
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
