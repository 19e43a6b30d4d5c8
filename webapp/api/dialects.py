"""The providers' dialects by name: what reads an entry of a webhook, whether it has just come or was in quarantine."""

from collections.abc import Callable, Iterator
from typing import Any

from webapp.api.meta import page, whatsapp
from webapp.api.meta.reading import Found, Seal
from webapp.leads.quarantine import Bad

Reader = Callable[[dict[str, Any], Seal], Iterator[Found | Bad]]

#: Name, as quarantine has it → reader of a whole body.
READERS: dict[str, Reader] = {"facebook": page.entries, "leadgen": page.entries, "whatsapp": whatsapp.entries}


def read(dialect: str, raw: Any, *, seal: Seal) -> list[Found | Bad]:
    """One quarantined entry (``Quarantined.raw`` or ``fixed``, parsed) → what it says now.

    ``LeadIn``: for :func:`webapp.leads.intake.accept_signals`. ``Announced``: for
    :func:`webapp.leads.leadgen.announce` with ``again=True``, then ring ``fetches``. ``Bad``: still undigestible, and
    why. Empty: nothing in it is a lead (an echo, a read receipt). ValueError for a dialect that is not here.
    """
    reader = READERS.get(dialect)
    if reader is None:
        raise ValueError(f"there is no dialect {dialect!r}")
    return list(reader(_body(raw), seal))


def _body(raw: Any) -> dict[str, Any]:
    """A whole body around one element of ``entry[]``, of ``changes[]`` or of ``messaging[]``."""
    if not isinstance(raw, dict):
        return {"entry": [raw]}
    if "entry" in raw:
        return raw
    if "changes" in raw or "messaging" in raw:
        return {"entry": [raw]}
    if "value" in raw or "field" in raw:
        return {"entry": [{"changes": [raw]}]}
    if "sender" in raw:
        return {"entry": [{"messaging": [raw]}]}
    return raw
