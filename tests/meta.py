"""Meta's webhooks as Meta sends them: bodies of pages and of WhatsApp accounts, signed."""

import hashlib
import hmac
import json
from typing import Any

from flask.testing import FlaskClient

SECRET = "meta-app-secret"


def page_body(*changes: Any, messaging: Any = None, page: str = "PAGE") -> dict[str, Any]:
    """A body of a Facebook page with one entry."""
    entry: dict[str, Any] = {"id": page, "time": 1520544814}
    if changes:
        entry["changes"] = list(changes)
    if messaging is not None:
        entry["messaging"] = messaging
    return {"object": "page", "entry": [entry]}


def leadgen(leadgen_id: Any, **over: Any) -> dict[str, Any]:
    """The change that announces a form."""
    value = {"leadgen_id": leadgen_id, "form_id": 77, "page_id": "PAGE", "created_time": 1520544814, "ad_id": 6042}
    return {"field": "leadgen", "value": value | over}


def event(mid: str | None = None, text: str | None = None, *, sender: Any = "psid", **more: Any) -> dict[str, Any]:
    """A messaging event of Messenger; with ``mid``, a message."""
    made = {"sender": {"id": sender}, "recipient": {"id": "PAGE"}, "timestamp": 1520544814000} | more
    if mid is not None:
        made["message"] = {"mid": mid} | ({"text": text} if text is not None else {}) | more.pop("message", {})
    return made


def whatsapp_message(number: int | str, kind: str = "text", content: Any = None, **over: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "from": "14155552671", "id": f"wamid.{number}", "timestamp": "1749416383", "type": kind,
    }  # fmt: skip
    made[kind] = {"body": "Giá bao nhiêu vậy shop?"} if content is None and kind == "text" else content
    return {name: value for name, value in (made | over).items() if value is not None}


def whatsapp_body(*messages: Any, number: str = "NUMBER", account: str = "WABA", **value: Any) -> dict[str, Any]:
    """A body of a WhatsApp account with one change."""
    given = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
        "contacts": [{"profile": {"name": "Hạnh"}, "wa_id": "14155552671"}],
        "messages": list(messages),
    } | value
    change = {"field": "messages", "value": {name: part for name, part in given.items() if part is not None}}
    return {"object": "whatsapp_business_account", "entry": [{"id": account, "changes": [change]}]}


def signed(client: FlaskClient, sent: Any, path: str = "/webhooks/facebook", secret: str = SECRET, **extra: str) -> Any:
    """Post it with the signature that the app secret makes."""
    raw = json.dumps(sent).encode()
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"} | extra
    return client.post(path, data=raw, headers=headers)
