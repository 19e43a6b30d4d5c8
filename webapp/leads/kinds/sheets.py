"""Google Sheets: a row for each lead in a tab of a spreadsheet, written by a service account."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from webapp.leads.kinds.base import Field, Guarantee, Kind, Mapped, Step, Unknown
from webapp.leads.states import DestinationKind

ROW = "row"
#: The header of column A, and of the column that says whether the lead still counts.
KEY, STATUS = "Lead ID", "Lead status"

_ID = re.compile(r"[A-Za-z0-9_-]{20,100}")
_IN_URL = re.compile(r"/spreadsheets/(?:u/\d+/)?d/([A-Za-z0-9_-]+)")


def spreadsheet_id(text: str) -> str:
    """Of a spreadsheet's address, or the id itself."""
    found = _IN_URL.search(text)
    return found[1] if found else text


def _id_problem(text: str) -> str | None:
    return None if _ID.fullmatch(text) else "must be the spreadsheet's address, or the id in it"


def _tab_problem(text: str) -> str | None:
    return None if len(text) <= 100 and text.isprintable() else "must be one line of at most 100 characters"


def key_problem(text: str) -> str | None:
    """Of a service account's key: is it one, whole, and of use?"""
    try:
        key = json.loads(text)
    except ValueError:
        return "must be the whole JSON file of the key, from { to }"
    if not isinstance(key, dict) or key.get("type") != "service_account":
        return "must be the key of a service account; this is something else"
    missing = [name for name in ("client_email", "private_key", "token_uri") if not isinstance(key.get(name), str)]
    if missing:
        return f"lacks {missing[0]}"
    if "@" not in key["client_email"] or not key["client_email"].isprintable():
        return "has a client_email that is no address"
    if urlsplit(key["token_uri"]).scheme != "https":
        return "has a token_uri that is no https:// address"
    try:
        private = load_pem_private_key(key["private_key"].encode(), password=None)
    except (ValueError, TypeError):
        return "has a private_key that cannot be read; paste the file as it was downloaded"
    return None if isinstance(private, RSAPrivateKey) else "has a private_key of another kind than RSA"


def _account(secrets: Mapping[str, Any]) -> dict[str, str]:
    """Whom the spreadsheet has to be shared with."""
    try:
        return {"account": str(json.loads(secrets["key"])["client_email"])}
    except (KeyError, ValueError, TypeError):
        return {}


def _note(config: Mapping[str, Any]) -> str | None:
    account = config.get("account")
    return f"Share the spreadsheet with {account} as an editor." if account else None


KIND = Kind(
    kind=DestinationKind.SHEETS,
    label="Google Sheets",
    about="A row for each lead. It is changed in place when the lead changes, and marked when the lead is taken back.",
    fields=(
        Field(
            "spreadsheet",
            "Spreadsheet",
            help="Its address, https://docs.google.com/spreadsheets/d/…, or the id in it",
            tidy=spreadsheet_id,
            check=_id_problem,
        ),
        Field(
            "tab",
            "Tab",
            help="As it is called at the bottom. Column A is the lead's key: take an empty tab, or leave column A empty.",
            default="Leads",
            check=_tab_problem,
        ),
        Field(
            "key",
            "Key of the service account",
            "long",
            "The whole JSON file, from Google Cloud: IAM → Service accounts → Keys",
            secret=True,
            check=key_problem,
        ),
    ),
    steps=(Step(ROW, 0, "row", updates=True, withdraws=True),),
    unknown=Unknown.ASKS,
    guarantees=(
        Guarantee(
            "row",
            "at most one row, as far as column A is left alone",
            "column A holds the lead's id and is read before each write; one delivery at a time writes to a spreadsheet",
        ),
    ),
    mapping=(
        Mapped("Received", "Received", "created_at"),
        Mapped("Name", "Name", "display_name"),
        Mapped("E-mail", "E-mail", "email"),
        Mapped("Phone", "Phone", "phone"),
        Mapped("Company", "Company", "company | facts.company_name"),
        Mapped("Intent", "Intent", "intent"),
        Mapped("Priority", "Priority", "priority"),
        Mapped("Score", "Score", "score"),
        Mapped("Source", "Source", "source"),
        Mapped("Message", "Message", "message"),
        Mapped("Assigned to", "Assigned to", "assignee.name"),
        Mapped("Link", "Link", "url"),
    ),
    open_fields=True,
    # taxonomy: Slack and Sheets are for qualified leads.
    rules={"qualified_only": True},
    per_minute=60,  # of a user, which a service account is
    one_at_a_time=("spreadsheet",),
    reserved=frozenset({KEY.casefold(), STATUS.casefold()}),
    shown=_account,
    note=_note,
    where=lambda config: f"{config.get('tab')} in {config.get('spreadsheet')}",
)
