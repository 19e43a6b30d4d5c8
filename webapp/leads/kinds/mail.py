"""E-mail by SMTP: a message for each lead, or a digest of those since the last one."""

import re
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from email_validator import EmailNotValidError, validate_email

from webapp.leads.digests import Digest
from webapp.leads.errors import Problem
from webapp.leads.kinds.base import Field, Guarantee, Kind, Step, Unknown, message_mapping
from webapp.leads.states import DestinationKind

MAIL = "mail"
MAX_RECIPIENTS = 20
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_EACH, _MINUTES, _DAILY = "each", "minutes", "daily"


def recipients(text: str) -> list[str]:
    return list(dict.fromkeys(part for part in re.split(r"[\s,;]+", text) if part))


def _tidied(text: str) -> str:
    return ", ".join(recipients(text))


def _host_problem(text: str) -> str | None:
    return None if _HOST.fullmatch(text) else "must be a host's name, such as smtp.example.com"


def _address_problem(text: str) -> str | None:
    try:
        validate_email(text, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        return "must be an address, such as leads@example.com"
    return None


def _recipients_problem(text: str) -> str | None:
    found = recipients(text)
    if len(found) > MAX_RECIPIENTS:
        return f"takes at most {MAX_RECIPIENTS} addresses"
    wrong = next((one for one in found if _address_problem(one)), None)
    return None if found and wrong is None else f"{wrong or text} is not an address; separate them by commas"


def _zone_problem(text: str) -> str | None:
    return None if text in available_timezones() else "must be a time zone, such as Europe/Berlin"


def _problems(config: Mapping[str, Any], secrets: Mapping[str, Any]) -> tuple[Problem, ...]:
    found = []
    if config.get("user") and config.get("security") == "none":
        found.append(Problem("security", "must be with encryption where a user name is given"))
    if config.get("user") and not secrets.get("password"):
        found.append(Problem("password", "is needed with a user name"))
    for name in ("user", "password"):
        if not str((secrets if name == "password" else config).get(name) or "").isascii():
            found.append(
                Problem(name, "may hold only letters without accents, digits and signs; others no login can send")
            )
    if config.get("when") == _MINUTES and not config.get("minutes"):
        found.append(Problem("minutes", "is needed"))
    if config.get("when") == _DAILY and config.get("hour") is None:
        found.append(Problem("hour", "is needed"))
    return tuple(found)


def digest(config: Mapping[str, Any]) -> Digest | None:
    """None: a mail for each lead."""
    if config.get("when") == _MINUTES:
        return Digest(minutes=int(config["minutes"]))
    if config.get("when") == _DAILY:
        return Digest(hour=int(config["hour"]), zone=ZoneInfo(str(config.get("zone") or "UTC")))
    return None


KIND = Kind(
    kind=DestinationKind.EMAIL,
    label="E-mail",
    about="A mail for each lead, or one for all since the last one. What has been mailed cannot be taken back.",
    fields=(
        Field("host", "Mail server", help="Such as smtp.example.com", check=_host_problem),
        Field("port", "Port", "number", "587 for STARTTLS, 465 for TLS", default=587, bounds=(1, 65_535)),
        Field(
            "security",
            "Encryption",
            "choice",
            default="starttls",
            choices=(("starttls", "STARTTLS"), ("tls", "TLS (SSL)"), ("none", "none; no login is made then")),
        ),
        Field("user", "User name", help="Empty: no login", required=False),
        Field("password", "Password", secret=True, required=False),
        Field("sender", "From", help="The address that it comes from", check=_address_problem),
        Field("to", "To", help="One address or several, separated by commas", tidy=_tidied, check=_recipients_problem),
        Field(
            "when",
            "How often",
            "choice",
            default=_EACH,
            choices=(
                (_EACH, "a mail for each lead"),
                (_MINUTES, "a digest every so many minutes"),
                (_DAILY, "a digest a day"),
            ),
        ),
        Field("minutes", "Minutes between digests", "number", required=False, default=60, bounds=(5, 1_440)),
        Field(
            "hour",
            "Hour of the daily digest",
            "number",
            "0 to 23, in the time zone below",
            required=False,
            default=8,
            bounds=(0, 23),
        ),
        Field("zone", "Time zone", required=False, default="UTC", check=_zone_problem),
        Field(
            "tells_withdrawal",
            "Mail a line in the same thread when a lead is taken back",
            "switch",
            required=False,
        ),
    ),
    steps=(Step(MAIL, 0, "mail", withdraws=True, withdraws_if="tells_withdrawal"),),
    unknown=Unknown.STOPS,
    guarantees=(
        Guarantee(
            "mail",
            "at most one to each recipient, and uncertain when the answer to the message is lost",
            "a mail server cannot be asked; the setting “send again” makes it at least once",
        ),
    ),
    mapping=message_mapping("Subject"),
    open_fields=True,
    tells_alerts=True,
    check=_problems,
    digest=digest,
    where=lambda config: f"{config.get('to')} by {config.get('host')}",
)
