"""``requires(role)``: a page that only members with at least this role may open."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import abort
from flask_login import current_user, login_required

from webapp.leads.states import Role


def requires(role: Role) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Not logged in: to the log-in page. Weaker role: 403 that says which role it takes."""

    def wrap(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        @login_required  # type: ignore[untyped-decorator]
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if not current_user.can(role):
                abort(403, f"This takes the role {role.value}; yours is {current_user.role.value}.")
            return view(*args, **kwargs)

        guarded.required_role = role  # type: ignore[attr-defined]
        return guarded

    return wrap
