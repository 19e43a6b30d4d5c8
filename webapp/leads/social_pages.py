"""Social pages: which workspace a page's webhooks belong to, and the tokens that fetch what they only announce.

Tokens and secrets are encrypted before they reach a row, and never shown again. Nothing here commits, but for
:class:`StoredTokens`, which workers use between their transactions.
"""

import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import audit
from webapp.leads.destinations import DEFAULT_WORKSPACE, Cipher
from webapp.leads.errors import Conflict, Invalid, NotFound, Permanent, Problem
from webapp.leads.ports import TokenState
from webapp.models.account import SocialPage, Workspace
from webapp.models.base import scoped

FACEBOOK, WHATSAPP = "facebook", "whatsapp"
PLATFORMS = (FACEBOOK, WHATSAPP)

#: Ids become part of an address of the Graph API.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET = re.compile(r"[!-~]+")
_TOKEN_LENGTH, _SECRET_LENGTH = (20, 1_000), (16, 200)


def listing(session: Session, workspace_id: uuid.UUID) -> Sequence[SocialPage]:
    """The workspace's pages, for the settings."""
    return session.scalars(scoped(SocialPage, workspace_id).order_by(SocialPage.platform, SocialPage.page_id)).all()


def find(session: Session, workspace_id: uuid.UUID, platform: str, page_id: str) -> SocialPage:
    """The page, locked. NotFound when it is not this workspace's."""
    page: SocialPage | None = session.scalar(
        scoped(SocialPage, workspace_id)
        .where(SocialPage.platform == platform, SocialPage.page_id == page_id)
        .with_for_update()
    )
    if page is None:
        raise NotFound("There is no such page in this workspace.")
    return page


def add(
    session: Session,
    workspace_id: uuid.UUID,
    platform: str,
    page_id: str,
    name: str | None = None,
    token: str | None = None,
    *,
    cipher: Cipher,
    actor: str = audit.SYSTEM,
) -> SocialPage:
    """Map a page to the workspace. Invalid names every bad field; Conflict when it is mapped already, without telling
    whose it is."""
    page_id, name, token = page_id.strip(), _clean(name), _clean(token)
    problems = [
        Problem("platform", "must be one of: " + ", ".join(PLATFORMS)) if platform not in PLATFORMS else None,
        None if _ID.fullmatch(page_id) else Problem("page_id", "must be the id that Meta shows, usually digits alone"),
        _name_problem(name),
        _token_problem(token),
    ]
    if found := tuple(problem for problem in problems if problem is not None):
        raise Invalid("the page cannot be added", details=found)
    created: SocialPage | None = session.scalar(
        insert(SocialPage)
        .values(
            platform=platform,
            page_id=page_id,
            workspace_id=workspace_id,
            name=name,
            access_token=cipher.encrypt(token) if token else None,
        )
        .on_conflict_do_nothing(index_elements=[SocialPage.platform, SocialPage.page_id])
        .returning(SocialPage)
    )
    if created is None:
        here = session.get(SocialPage, (platform, page_id))
        if here is not None and here.workspace_id == workspace_id:
            raise Conflict("This page is in the list already; change it there.", code="resource_exists")
        raise Conflict(
            "This page belongs to another workspace of this console. It has to be removed there first.",
            code="resource_exists",
        )
    _record(session, created, "SOCIAL_PAGE_ADDED", actor, token=bool(token))
    return created


def change(
    session: Session,
    page: SocialPage,
    name: str | None,
    token: str | None,
    *,
    cipher: Cipher,
    actor: str = audit.SYSTEM,
) -> bool:
    """Rename it; with ``token``, replace its token, of which nothing is known then. Returns whether it has a new one.
    Invalid names every bad field."""
    name, token = _clean(name), _clean(token)
    if found := tuple(problem for problem in (_name_problem(name), _token_problem(token)) if problem is not None):
        raise Invalid("the page cannot be changed", details=found)
    if name == page.name and token is None:
        return False
    page.name = name
    if token is not None:
        page.access_token = cipher.encrypt(token)
        page.token_problem = page.token_checked_at = page.token_expires_at = None
    _record(session, page, "SOCIAL_PAGE_CHANGED", actor, token=token is not None)
    session.flush()
    return token is not None


def remove(session: Session, page: SocialPage, *, actor: str = audit.SYSTEM) -> None:
    """Its webhooks are nobody's from now on; leads that it brought stay."""
    _record(session, page, "SOCIAL_PAGE_REMOVED", actor)
    session.delete(page)
    session.flush()


def tested(session: Session, page: SocialPage, state: TokenState) -> None:
    """Keep what a test of the token found."""
    page.token_problem, page.token_expires_at = state.problem, state.expires_at
    page.token_checked_at = sa.func.now()
    session.flush()


def set_app_secret(
    session: Session, workspace: Workspace, secret: str | None, *, cipher: Cipher, actor: str = audit.SYSTEM
) -> None:
    """The workspace's own Meta app's secret, which signs its webhooks; None removes it. Invalid for what is none."""
    secret = _clean(secret)
    if secret is not None and (problem := _secret_problem("app_secret", secret, *_SECRET_LENGTH)):
        raise Invalid("the app secret cannot be kept", details=(problem,))
    if secret is None and workspace.meta_app_secret is None:
        return
    workspace.meta_app_secret = cipher.encrypt(secret) if secret else None
    audit.record(session, workspace.id, f"META_SECRET_{'SET' if secret else 'REMOVED'}", actor=actor)
    session.flush()


class StoredTokens:
    """``ports.PageTokens`` on the database; ``default_token`` serves pages of the workspace ``default`` that have
    none of their own."""

    def __init__(
        self,
        session_factory: Callable[[], AbstractContextManager[Session]],
        decrypt: Callable[[str], Any],
        default_token: str | None = None,
    ) -> None:
        self._session_factory = session_factory
        self._decrypt = decrypt
        self._default_token = default_token

    def token(self, workspace_id: uuid.UUID, page_id: str) -> str | None:
        """See ``ports.PageTokens``."""
        with self._session_factory() as session:
            sealed = session.scalar(sa.select(SocialPage.access_token).where(*_page(workspace_id, page_id)))
            if sealed is None and self._default_token:
                name = session.scalar(sa.select(Workspace.name).where(Workspace.id == workspace_id))
                return self._default_token if name == DEFAULT_WORKSPACE else None
        if sealed is None:
            return None
        try:
            return str(self._decrypt(sealed))
        except ValueError:
            raise Permanent("the page's access token cannot be decrypted any more; enter it again") from None

    def used(self, workspace_id: uuid.UUID, page_id: str, problem: str | None) -> None:
        """See ``ports.PageTokens``. Told once to the audit trail, however many calls fail for it."""
        with self._session_factory() as session:
            page = session.scalar(
                sa.update(SocialPage)
                .where(*_page(workspace_id, page_id), SocialPage.token_problem.is_distinct_from(problem))
                .values(token_problem=problem, token_checked_at=sa.func.now())
                .returning(SocialPage)
            )
            if page is not None and problem is not None:
                _record(session, page, "SOCIAL_PAGE_TROUBLE", audit.SYSTEM, problem=problem)
            session.commit()


def _page(workspace_id: uuid.UUID, page_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The Facebook page; another workspace's token is never used, whatever a webhook says."""
    return (
        SocialPage.platform == FACEBOOK,
        SocialPage.page_id == page_id,
        SocialPage.workspace_id == workspace_id,
    )


def _record(session: Session, page: SocialPage, event: str, actor: str, **details: Any) -> None:
    shown = f"{page.name} ({page.page_id})" if page.name else page.page_id
    audit.record(session, page.workspace_id, event, actor=actor, page=shown, platform=page.platform, **details)


def _clean(value: str | None) -> str | None:
    return value.strip() or None if value else None


def _name_problem(name: str | None) -> Problem | None:
    if name is not None and (len(name) > 120 or not name.isprintable()):
        return Problem("name", "must have at most 120 characters on one line")
    return None


def _token_problem(token: str | None) -> Problem | None:
    return _secret_problem("token", token, *_TOKEN_LENGTH) if token else None


def _secret_problem(field: str, value: str, shortest: int, longest: int) -> Problem | None:
    if _SECRET.fullmatch(value) and shortest <= len(value) <= longest:
        return None
    return Problem(field, f"must have {shortest} to {longest:,} characters, without spaces")
