"""Lead Ads: the webhook says that a form was filled in; its answers are fetched by a worker."""

import re
from typing import Any

from webapp.api.meta.reading import Undigestible, required, text
from webapp.leads.leadgen import Announced

#: It becomes part of an address.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def announced(change: dict[str, Any], page_id: str | None) -> Announced:
    """The page is the entry's, which is what decided whose it is; the one in the change only stands in for it."""
    value = change["value"]
    leadgen_id = required(value.get("leadgen_id"), "leadgen_id")
    if not _ID.fullmatch(leadgen_id):
        raise Undigestible("leadgen_id is none that Meta gives")
    page = page_id or text(value.get("page_id"))
    if page is None:
        raise Undigestible("it does not say which page the form is of")
    return Announced(leadgen_id, page, change | {"value": value | {"page_id": page}})
