"""Destinations of the demo besides those that the environment makes: one of each kind that an admin sets up.

Once something was delivered to each they only watch, or are switched off: then nothing of the demo's goes out if its data is
ever used without the stand-ins, and a newcomer sees both. All the same they can be tried out, and switched on.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import sqlalchemy as sa
from sqlalchemy.orm import Session

from embedded import demo
from embedded.demo_history import ACTOR
from tests.fakes.hubspot import TOKEN
from tests.fakes.salesforce import CLIENT_ID, CLIENT_SECRET, LEAD_FIELD, TASK_FIELD
from tests.fakes.sheets import SPREADSHEET
from tests.fakes.webhook_receiver import SECRET
from webapp.leads import destinations
from webapp.leads.destinations import Cipher, Wanted
from webapp.leads.kinds.salesforce import CLIENT_CREDENTIALS
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode
from webapp.leads.triggers import DEFAULT_ON
from webapp.models.base import scoped
from webapp.models.work import Delivery, Destination

_UNLIMITED = {"per_second": "", "per_minute": ""}
"""A stand-in needs no rate budget, and a newcomer would wait for it."""
_HUBSPOT_VALUES = {"id_property": "lead_ops_person", "notes": "on"}


class _Place(NamedTuple):
    """`rests`: its mode once something has come there. `values`: what a form has besides what leads to the stand-in, which
    are `config` and `secrets`, as stored. `rules`: few leads go there."""

    kind: DestinationKind
    name: str
    rests: DestinationMode
    values: dict[str, str]
    config: dict[str, Any]
    secrets: dict[str, str]
    rules: dict[str, Any]


def _places(environ: Mapping[str, str]) -> list[_Place]:
    kind, watches, off = DestinationKind, DestinationMode.SHADOW, DestinationMode.OFF
    hubspot, salesforce, hook = ({"url": environ[f"DEMO_{name}_URL"]} for name in ("HUBSPOT", "SALESFORCE", "WEBHOOK"))
    server = urlsplit(environ["DEMO_SMTP_URL"])
    salesforce_values = {"grant": CLIENT_CREDENTIALS, "client_id": CLIENT_ID}
    salesforce_values |= {"lead_field": LEAD_FIELD, "task_field": TASK_FIELD}
    key = _key(environ["SHEETS_API_URL"])
    # The stand-in gives its tokens over plain http, which no form takes.
    entered = json.dumps(key | {"token_uri": "https://oauth2.googleapis.com/token"})
    sheet_values = {"spreadsheet": SPREADSHEET, "tab": "Leads", "key": entered}
    mail_values = {"security": "none", "sender": "console@demo.example", "when": "each"}
    mail_values |= {"to": "mona@demo.example, marek@demo.example"}
    mail = {"host": server.hostname, "port": server.port}
    buys = {"intent": ["purchase_intent", "demo_request"]}
    return [
        _Place(kind.HUBSPOT, "HubSpot", watches, _HUBSPOT_VALUES, hubspot, {"token": TOKEN}, {"source": "partner"}),
        _Place(
            kind.SALESFORCE, "Salesforce", off, salesforce_values, salesforce, {"client_secret": CLIENT_SECRET},
            {"source": "google_ads"},
        ),
        _Place(kind.SHEETS, "Sheet of the sales team", watches, sheet_values, {}, {"key": json.dumps(key)}, buys),
        _Place(kind.EMAIL, "Mail to the managers", watches, mail_values, mail, {}, {"priority": ["P0"]}),
        _Place(kind.WEBHOOK, "Data warehouse", watches, {}, hook, {"secret": SECRET}, {"source": "csv_import"}),
    ]  # fmt: skip


def _key(url: str) -> dict[str, Any]:
    with requests.Session() as http:
        http.trust_env = False
        answer = http.get(f"{url}{demo.SHEETS_KEY}", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())


def create(session: Session, workspace_id: uuid.UUID, environ: Mapping[str, str], cipher: Cipher) -> None:
    for place in _places(environ):
        settings = {name: str(value) for name, value in place.config.items()}
        rules = {"on": list(DEFAULT_ON)} | place.rules
        wanted = Wanted(place.name, settings | place.secrets | place.values, _UNLIMITED, rules)
        row, _ = destinations.create(session, workspace_id, place.kind, wanted, cipher=cipher, actor=ACTOR)
        _lead_to(row, place, cipher)


def find_stand_ins(session: Session, workspace_id: uuid.UUID, environ: Mapping[str, str], cipher: Cipher) -> None:
    """At each start they are somewhere else."""
    places = {(place.kind, place.name): place for place in _places(environ)}
    for row in session.scalars(scoped(Destination, workspace_id).where(Destination.managed_by.is_(None))):
        if place := places.get((row.kind, row.name)):
            _lead_to(row, place, cipher)


def _lead_to(row: Destination, place: _Place, cipher: Cipher) -> None:
    row.config = row.config | place.config
    row.credentials = cipher.encrypt(place.secrets) if place.secrets else None


def without_delivery(workspace_id: uuid.UUID) -> sa.Select[tuple[int]]:
    """How many of them nothing has reached yet."""
    reached = sa.exists().where(Delivery.destination_id == Destination.id, Delivery.state == DeliveryState.DELIVERED)
    return sa.select(sa.func.count()).where(
        Destination.workspace_id == workspace_id, Destination.managed_by.is_(None), ~reached
    )


def rest(session: Session, workspace_id: uuid.UUID, environ: Mapping[str, str]) -> None:
    """What is due from here on is recorded, or waits."""
    modes = {place.name: place.rests for place in _places(environ)}
    for row in session.scalars(scoped(Destination, workspace_id).where(Destination.name.in_(modes))).all():
        destinations.set_mode(session, workspace_id, row.id, modes[row.name], actor=ACTOR)
