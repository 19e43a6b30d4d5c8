"""``flask social-pages``: which workspace a page's webhooks belong to, for operators and scripts."""

import sys

import click
import sqlalchemy as sa
from flask import current_app
from flask.cli import AppGroup

from jobs.queue import ring_now
from webapp.cli import ACTOR, committed, find_workspace
from webapp.extensions import db
from webapp.leads import leadgen, social_pages
from webapp.leads.destinations import DEFAULT_WORKSPACE
from webapp.models.account import SocialPage, Workspace

group = AppGroup("social-pages", help="Map Facebook pages and WhatsApp numbers to workspaces.")
_platform = click.argument("platform", type=click.Choice(social_pages.PLATFORMS))


@group.command("add")
@_platform
@click.argument("page_id")
@click.option("--workspace", default=DEFAULT_WORKSPACE, show_default=True)
@click.option("--name", help="As people know the page.")
@click.option("--token-stdin", is_flag=True, help="Read the page's access token from standard input.")
@committed
def add(platform: str, page_id: str, workspace: str, name: str | None, token_stdin: bool) -> None:
    """Give a page's webhooks to a workspace. Prints nothing."""
    token = sys.stdin.readline().strip() if token_stdin else None
    owner = find_workspace(workspace)
    cipher = current_app.extensions["cipher"]
    page = social_pages.add(db.session(), owner.id, platform, page_id, name, token, cipher=cipher, actor=ACTOR)
    if token and leadgen.ask_again(db.session(), owner.id, page.page_id):
        db.session.commit()
        ring_now("fetches")


@group.command("list")
def listing() -> None:
    """One line for each page: platform, id, workspace, token (yes, no, refused), name; separated by tabs."""
    rows = db.session.execute(
        sa.select(SocialPage, Workspace.name)
        .join(Workspace, Workspace.id == SocialPage.workspace_id)
        .order_by(Workspace.name, SocialPage.platform, SocialPage.page_id)
    )
    for page, workspace in rows:
        token = "refused" if page.token_problem else "yes" if page.access_token else "no"
        click.echo("\t".join((page.platform, page.page_id, workspace, token, page.name or "")))


@group.command("remove")
@_platform
@click.argument("page_id")
@click.option("--workspace", default=DEFAULT_WORKSPACE, show_default=True)
@committed
def remove(platform: str, page_id: str, workspace: str) -> None:
    """Take a page away from its workspace; its leads stay. Prints nothing."""
    page = social_pages.find(db.session(), find_workspace(workspace).id, platform, page_id)
    social_pages.remove(db.session(), page, actor=ACTOR)
