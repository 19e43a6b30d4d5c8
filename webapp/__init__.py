"""The application factory: settings, extensions, blueprints, error handlers; nothing else."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from flask_limiter import Limiter

    from webapp.config import Settings
    from webapp.leads.ports import Clients, LookupClients, TokenState

ROOT = Path(__file__).resolve().parent.parent
#: So long may Meta take to answer while an admin waits.
TOKEN_CHECK_SECONDS = 5.0


def create_app(settings: Settings | None = None) -> Flask:
    """A ready WSGI app. ConfigError when a setting is missing or nonsense."""
    # Imported here, so that a worker or a script that needs webapp.leads or webapp.config does not load the web.
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from jobs import queue
    from webapp import api, cli, errors, logs, views
    from webapp.config import load_settings
    from webapp.engine import engine_options, guard, make_autocommit_engine
    from webapp.extensions import csrf, db, limiter, login_manager, migrate
    from webapp.leads import flags
    from webapp.leads.ruleset import default_ruleset
    from webapp.security import headers
    from webapp.security.fields import FieldCipher
    from webapp.security.sessions import PageSessions

    settings = settings or load_settings()
    settings.require_services()
    logs.configure(settings.log_level)
    flags.use_defaults(settings)

    app = Flask(
        "leadops",
        root_path=str(ROOT / "webapp"),
        template_folder=str(ROOT / "templates"),
        static_folder=str(ROOT / "static"),
    )
    https = settings.public_url.startswith("https://")
    app.session_interface = PageSessions()
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        SQLALCHEMY_DATABASE_URI=settings.database_url.get_secret_value(),
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings),
        RATELIMIT_STORAGE_URI=limiter_storage(settings.redis_url.get_secret_value()),
        RATELIMIT_STORAGE_OPTIONS={"socket_timeout": 0.2, "socket_connect_timeout": 0.2},
        RATELIMIT_KEY_PREFIX="leadops",
        SESSION_COOKIE_NAME="leadops",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=https,
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        SESSION_REFRESH_EACH_REQUEST=False,  # see PageSessions
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a form left open over lunch still works
        WTF_CSRF_HEADERS=["X-CSRFToken"],
        WTF_CSRF_SSL_STRICT=False,
        # Pages only; the JSON doors read their bodies themselves (webapp.api.body), each with its own limit.
        MAX_CONTENT_LENGTH=1 << 20,
        MAX_FORM_MEMORY_SIZE=1 << 20,
    )
    app.extensions["settings"] = settings
    app.extensions["cipher"] = FieldCipher([key.get_secret_value() for key in settings.field_encryption_keys])
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["token_check"] = _token_check(settings)
    app.extensions["destination_clients"] = _destination_clients(settings)
    app.extensions["lookups"] = _lookups(settings)

    queue.init(settings.redis_url.get_secret_value())
    db.init_app(app)
    with app.app_context():
        guard(db.engine)
    app.extensions["autocommit"] = make_autocommit_engine(settings)
    migrate.init_app(app, db, directory=str(ROOT / "migrations"))
    csrf.init_app(app)
    login_manager.init_app(app)
    limiter.init_app(app)
    _limit_pages_only(app, limiter)
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]

    default_ruleset()  # compiled before the first request rather than in it
    errors.install(app)
    headers.install(app, https=https)
    api.register(app)
    views.register(app)
    cli.register(app)
    return app


def _token_check(settings: Settings) -> Callable[[str, str, str], TokenState]:
    """``(platform, page id, access token)`` → whether Meta takes it: the one call to the outside that a page makes, for
    the admin who waits for it."""

    def check(platform: str, page_id: str, token: str) -> TokenState:
        from jobs import wiring  # and with it the clients, which no other request needs

        return wiring.graph(settings, timeout=TOKEN_CHECK_SECONDS).check(platform, page_id, token)

    return check


def _destination_clients(settings: Settings) -> Callable[[], Clients]:
    """The clients of destinations, for the admin who presses "send a test"."""

    @lru_cache(maxsize=1)
    def clients() -> Clients:
        from jobs import wiring  # and with it the clients, which no other request needs

        return wiring.clients_of(settings)

    return clients


def _lookups(settings: Settings) -> Callable[[], LookupClients]:
    """The clients with which an admin tries a data service out; made at first use, like the token check's."""

    @lru_cache(maxsize=1)
    def made() -> LookupClients:
        from jobs import wiring

        return wiring.lookups(settings)

    return made


def _limit_pages_only(app: Flask, limiter: Limiter) -> None:
    """Flask-Limiter looks for limits at every request; programs have their own counter and need not wait for it."""
    from webapp.errors import is_json_door

    hooks = app.before_request_funcs[None]
    for place, check in enumerate(hooks):
        if getattr(check, "__self__", None) is limiter:  # absent where it is switched off
            hooks[place] = lambda check=check: None if is_json_door() else check()
            return


def limiter_storage(redis_url: str) -> str:
    """Flask-Limiter's spelling of a Redis URL on a unix socket."""
    return f"redis+{redis_url}" if redis_url.startswith("unix://") else redis_url
