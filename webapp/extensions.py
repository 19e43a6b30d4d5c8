"""Flask extensions, unbound; ``create_app`` binds them."""

from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_wtf import CSRFProtect

from webapp.models.base import db

__all__ = ["csrf", "db", "limiter", "login_manager", "migrate"]

migrate = Migrate()
csrf = CSRFProtect()
login_manager = LoginManager()
#: Guards pages such as the log-in. API keys have their own counter (``webapp.security.ratelimit``), since it must not
#: cost a round trip to Redis. Without the in-memory fallback a dead Redis would turn every guarded page into a 500.
limiter = Limiter(key_func=get_remote_address, in_memory_fallback_enabled=True, swallow_errors=True)
