"""Settings: social pages, their access tokens, and what Meta's dialog asks for."""

from typing import Any

from flask import Blueprint, current_app, request
from flask_login import current_user

from jobs.queue import ring
from webapp.extensions import db
from webapp.leads import leadgen, social_pages
from webapp.leads.destinations import DEFAULT_WORKSPACE
from webapp.leads.errors import Conflict, Invalid, LeadError, Problem
from webapp.leads.ports import TokenState
from webapp.leads.states import Role
from webapp.models.account import SocialPage
from webapp.security.roles import requires
from webapp.views import helpers, times

bp = Blueprint("social_pages", __name__)

#: Platform → (what a page of it is called, the path of its webhook).
PLATFORMS = {
    social_pages.FACEBOOK: ("Facebook page", "/webhooks/facebook"),
    social_pages.WHATSAPP: ("WhatsApp number", "/webhooks/whatsapp"),
}


@bp.get("/settings/social-pages")
@requires(Role.ADMIN)
def index() -> Any:
    return _page()


def _page(status: int = 200, **extra: Any) -> Any:
    session, settings = db.session(), helpers.settings()
    base = settings.public_url or request.url_root.rstrip("/")
    token = settings.meta_verify_token
    shown: dict[str, Any] = {"given": {}, "problems": {}, "refused": None, "changed": None}
    return helpers.show(
        "pages/social_pages.html",
        pages=social_pages.listing(session, helpers.here()),
        waiting=leadgen.waiting(session, helpers.here()),
        platforms=PLATFORMS,
        callbacks=[(name, base + path) for name, path in PLATFORMS.values()],
        verify_token=token.get_secret_value() if token else None,
        has_secret=current_user.workspace.meta_app_secret is not None,
        has_public_url=bool(settings.public_url),
        operators=_operators(),
        status=status,
        **(shown | extra),
    )


def _operators() -> dict[str, bool]:
    """What the environment holds for this workspace, which is only ever ``default``'s."""
    settings, default = helpers.settings(), current_user.workspace.name == DEFAULT_WORKSPACE
    return {"token": default and bool(settings.meta_access_token), "secret": default and bool(settings.meta_app_secret)}


@bp.post("/settings/social-pages")
@requires(Role.ADMIN)
def create() -> Any:
    session = db.session()
    given = {name: request.form.get(name, "").strip() for name in ("platform", "page_id", "name", "token")}
    try:
        page = social_pages.add(
            session,
            helpers.here(),
            given["platform"],
            given["page_id"],
            given["name"],
            given["token"],
            cipher=current_app.extensions["cipher"],
            actor=current_user.user.name,
        )
    except (Invalid, Conflict) as error:
        session.rollback()
        conflict = isinstance(error, Conflict)
        return _page(
            409 if conflict else 422,
            given=given | {"token": ""},
            problems={} if conflict else helpers.problems_of(error),
            refused=error.message if conflict else None,
        )
    title = _title(page)
    asked = leadgen.ask_again(session, helpers.here(), page.page_id) if page.access_token else 0
    session.commit()
    _applied(asked)
    helpers.toast("Added", f"{title}; its webhooks belong to this workspace now{_fetching(asked)}")
    return helpers.see("social_pages.index")


@bp.post("/settings/social-pages/<platform>/<page_id>/change")
@requires(Role.ADMIN)
def change(platform: str, page_id: str) -> Any:
    """A new name, a new token. Forms that the old token could not fetch are asked for again."""
    session = db.session()
    page = social_pages.find(session, helpers.here(), platform, page_id)
    name, token = request.form.get("name"), request.form.get("token")
    try:
        replaced = social_pages.change(
            session, page, name, token, cipher=current_app.extensions["cipher"], actor=current_user.user.name
        )
    except Invalid as error:
        session.rollback()
        return _page(422, changed={"key": (platform, page_id), "name": name, "problems": helpers.problems_of(error)})
    title = _title(page)
    asked = leadgen.ask_again(session, helpers.here(), page_id) if replaced else 0
    session.commit()
    _applied(asked)
    helpers.toast("Saved", f"{title}{'; the new token is used from now on' if replaced else ''}{_fetching(asked)}")
    return helpers.see("social_pages.index")


@bp.post("/settings/social-pages/<platform>/<page_id>/test")
@requires(Role.ADMIN)
def test(platform: str, page_id: str) -> Any:
    """Ask Meta whether the token works; what it says is kept beside the page."""
    session = db.session()
    page = social_pages.find(session, helpers.here(), platform, page_id)
    title, sealed = _title(page), page.access_token
    session.commit()  # nothing is held while Meta is asked
    if sealed is None:
        helpers.toast("Not tested", f"{title} has no access token")
        return helpers.see("social_pages.index")
    try:
        state = _ask(platform, page_id, sealed)
    except LeadError as error:
        helpers.toast("Not tested", f"Facebook cannot be asked now ({error.message}). Nothing has changed; try again.")
        return helpers.see("social_pages.index")
    page = social_pages.find(session, helpers.here(), platform, page_id)
    if page.access_token == sealed:  # or somebody has replaced it meanwhile, of which nothing is known
        social_pages.tested(session, page, state)
    session.commit()
    helpers.toast("The token does not work" if state.problem else "The token works", f"{title}: {_said(state)}")
    return helpers.see("social_pages.index")


def _ask(platform: str, page_id: str, sealed: str) -> TokenState:
    """Transient when nobody can tell now."""
    try:
        token = str(current_app.extensions["cipher"].decrypt(sealed))
    except ValueError:
        return TokenState(problem="it cannot be decrypted any more; enter it again")
    state: TokenState = current_app.extensions["token_check"](platform, page_id, token)
    return state


def _said(state: TokenState) -> str:
    if state.problem:
        return state.problem
    until = f"works until {times.moment(state.expires_at)}" if state.expires_at else "no end is known"
    lacks = f"; lead forms also need the permission {', '.join(state.lacks)}" if state.lacks else ""
    return until + lacks


@bp.post("/settings/social-pages/<platform>/<page_id>/fetch")
@requires(Role.ADMIN)
def fetch(platform: str, page_id: str) -> Any:
    """Ask again for the forms that were given up."""
    session = db.session()
    title = _title(social_pages.find(session, helpers.here(), platform, page_id))
    asked = leadgen.ask_again(session, helpers.here(), page_id)
    session.commit()
    _applied(asked)
    helpers.toast("Asked again", f"{title}{_fetching(asked) or '; no form waits'}")
    return helpers.see("social_pages.index")


@bp.post("/settings/social-pages/<platform>/<page_id>/remove")
@requires(Role.ADMIN)
def remove(platform: str, page_id: str) -> Any:
    session = db.session()
    page = social_pages.find(session, helpers.here(), platform, page_id)
    title = _title(page)
    social_pages.remove(session, page, actor=current_user.user.name)
    session.commit()
    _applied()
    helpers.toast("Removed", f"{title}; its leads stay, and its webhooks stop within seconds")
    return helpers.see("social_pages.index")


@bp.post("/settings/social-pages/app-secret")
@requires(Role.ADMIN)
def set_secret() -> Any:
    return _secret(request.form.get("app_secret", ""), "Saved", "webhooks signed with this app secret are taken")


@bp.post("/settings/social-pages/app-secret/remove")
@requires(Role.ADMIN)
def remove_secret() -> Any:
    return _secret(None, "Removed", "webhooks signed with it are refused within seconds")


def _secret(secret: str | None, done: str, means: str) -> Any:
    session = db.session()
    try:
        if secret is not None and not secret.strip():
            raise Invalid("the app secret cannot be kept", details=(Problem("app_secret", "is missing"),))
        social_pages.set_app_secret(
            session,
            current_user.workspace,
            secret,
            cipher=current_app.extensions["cipher"],
            actor=current_user.user.name,
        )
    except Invalid as error:
        session.rollback()
        return _page(422, problems=helpers.problems_of(error))
    session.commit()
    _applied()
    helpers.toast(done, means)
    return helpers.see("social_pages.index")


def _applied(asked: int = 0) -> None:
    """After the commit: this process forgets what it knew of pages; the others do within seconds."""
    current_app.extensions["meta_sources"].clear()
    if asked:
        ring("fetches")


def _title(page: SocialPage) -> str:
    return page.name or f"{PLATFORMS[page.platform][0]} {page.page_id}"


def _fetching(asked: int) -> str:
    if not asked:
        return ""
    return (
        f"; {asked} form that waited is fetched now" if asked == 1 else f"; {asked} forms that waited are fetched now"
    )
