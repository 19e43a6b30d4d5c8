"""What cleansing found in a lead, and the buttons that use it or take it back."""

import uuid
from typing import Any, NamedTuple

import pycountry
from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import corrections
from webapp.leads.states import Role
from webapp.models.lead import Lead
from webapp.security.roles import requires
from webapp.views import helpers

bp = Blueprint("corrections", __name__)


class Correction(NamedTuple):
    """One thing found: what it says, and what its button does (``use``) under which words."""

    field: str
    text: str
    press: str
    use: bool


_WHY = {
    "country": "the lead names that country",
    "email": "the e-mail address is from there",
    "language": "the message is in its language",
}


def of(lead: Lead) -> list[Correction]:
    """What was found in this lead, used or not."""
    cleaned, found = lead.cleaned, []
    if "name" in cleaned:
        found.append(Correction("name", f"The name was sent as “{lead.name}”.", "Show it as sent", False))
    elif "name_unused" in cleaned:
        text = f"The name is shown as sent; put in order it is “{cleaned['name_unused']}”."
        found.append(Correction("name", text, "Put it in order", True))
    if meant := cleaned.get("email_suggestion"):
        if cleaned.get("email_used"):
            text = f"The address was sent as {lead.email}; {meant} is used."
            found.append(Correction("email", text, "Use the one sent", False))
        else:
            found.append(Correction("email", f"The address looks mistyped. Is it {meant}?", "Use that one", True))
    if region := cleaned.get("phone_region"):
        why = _WHY.get(cleaned.get("phone_region_from", ""), "")
        text = (
            f"The number has no country code. It is read as one of {country(region)}{f', since {why}' if why else ''}."
        )
        found.append(Correction("phone", text, "Read it as one of ours", False))
    elif region := cleaned.get("phone_region_unused"):
        text = f"The number has no country code. It is read as one of ours; it may be one of {country(region)}."
        found.append(Correction("phone", text, f"Read it as {country(region)}", True))
    return found


def country(region: str) -> str:
    """``VN`` → ``Vietnam``"""
    found = pycountry.countries.get(alpha_2=region)
    return getattr(found, "common_name", None) or found.name if found else region


@bp.post("/queue/<uuid:lead_id>/correct")
@requires(Role.REVIEWER)
def correct(lead_id: uuid.UUID) -> Any:
    field, use = request.form.get("field", ""), request.form.get("use") == "yes"
    corrections.correct(
        db.session(),
        helpers.here(),
        lead_id,
        field,
        use=use,
        actor=helpers.actor(),
        region=str(current_user.workspace.settings.get("region") or helpers.settings().default_region),
    )
    db.session.commit()
    helpers.toast("Corrected" if use else "As it was sent", "what was sent is kept either way")
    return helpers.see("lead.show", lead_id=lead_id, **helpers.back_args())
