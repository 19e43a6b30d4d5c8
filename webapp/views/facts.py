"""What is known of the person behind a lead, put together for reading: what was sent, and what the last run learned."""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from webapp.leads import callbacks
from webapp.models.lead import Lead
from webapp.models.work import Run
from webapp.views import times, words

_ENCRYPTED = "enc:"


class Shown(NamedTuple):
    """One fact: its label, its value, and beside it in small what is known about it."""

    label: str
    value: str
    notes: str = ""


def learned(runs: list[Run]) -> dict[str, Any]:
    """name → value of the newest run whose enrich stage found something."""
    for run in runs:
        for stage in run.stages or ():
            if stage.get("name") == "enrich" and isinstance(stage.get("output"), dict) and stage["output"]:
                return dict(stage["output"])
    return {}


def of(lead: Lead, runs: list[Run]) -> list[Shown]:
    """The facts in the order in which a reviewer wants them; what is not known is left out."""
    known = learned(runs)
    found = [
        _address(lead, known),
        Shown("Phone", lead.phone, _phone(known)) if lead.phone else None,
        _company(lead, known),
        Shown("Name", lead.author_name, "on the platform")
        if lead.author_name and lead.author_name != lead.name
        else None,
        _local_time(known),
        Shown("Budget", f"{lead.budget:,.0f}") if lead.budget is not None else None,
        Shown("Consent", lead.consent, times.moment(lead.consent_at) if lead.consent_at else "")
        if lead.consent
        else None,
    ]
    return [fact for fact in found if fact is not None]


def _address(lead: Lead, known: dict[str, Any]) -> Shown | None:
    used = lead.email_normalized if lead.cleaned.get("email_used") else lead.email
    return Shown("E-mail", used, _email(known)) if used else None


def _email(known: dict[str, Any]) -> str:
    if known.get("email_valid") is False:
        return "not a valid address"
    notes = ["valid"] if known.get("email_valid") else []
    notes += ["throw-away address"] if known.get("email_disposable") else []
    notes += (
        ["private mail service"] if known.get("email_free") else (["company"] if known.get("company_domain") else [])
    )
    notes += ["shared mailbox"] if known.get("email_role") else []
    return ", ".join(notes)


def _phone(known: dict[str, Any]) -> str:
    if known.get("phone_valid") is False:
        return "not a valid number"
    kind = known.get("phone_type")
    notes = [
        str(kind).replace("_", " ") if kind and kind != "unknown" else "",
        known.get("phone_region"),
        known.get("phone_carrier"),
    ]
    return " · ".join(str(note) for note in notes if note)


def _company(lead: Lead, known: dict[str, Any]) -> Shown | None:
    domain = known.get("company_domain")
    if lead.company:
        return Shown("Company", lead.company, str(domain or ""))
    return Shown("Company", str(domain), "from the e-mail address") if domain else None


def _local_time(known: dict[str, Any]) -> Shown | None:
    zones = known.get("phone_time_zones")
    zone = zones[0] if isinstance(zones, list) and len(zones) == 1 else zones if isinstance(zones, str) else None
    if not zone or "," in zone:
        return None
    try:
        now = datetime.now(UTC).astimezone(ZoneInfo(str(zone)))
    except (KeyError, ValueError, OSError):
        return None
    return Shown("Local time", f"{now:%H:%M %A}", str(zone).replace("_", " "))


def sent(lead: Lead) -> list[Shown]:
    """Whatever else came with the request. Sensitive values stay encrypted and are not shown."""
    found = []
    for given in (lead.attributes, lead.attribution):
        for name, value in (given or {}).items():
            if value not in (None, "", [], {}):
                found.append(Shown(words.plain(str(name)).capitalize(), *_value(value)))
    if lead.callback_url:
        found.append(Shown("Result goes to", callbacks.shown(lead.callback_url)))
    return found


def _value(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        return ("•••", "kept encrypted") if value.startswith(_ENCRYPTED) else (value, "")
    if isinstance(value, bool):
        return ("yes" if value else "no"), ""
    if isinstance(value, dict):
        return ", ".join(f"{words.plain(str(k))}: {_value(v)[0]}" for k, v in value.items()), ""
    if isinstance(value, list):
        return ", ".join(_value(item)[0] for item in value), ""
    return f"{value:,}" if isinstance(value, int | float) else str(value), ""
