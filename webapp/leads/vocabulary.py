"""What closed vocabularies say in words, for pages and for what is sent to people (``views.words`` has the rest)."""

from collections.abc import Mapping
from typing import Any

from webapp.leads.states import Intent, NextAction, Priority

INTENT: dict[Intent, str] = {
    Intent.PURCHASE_INTENT: "purchase",
    Intent.INQUIRY_PRICE: "price inquiry",
    Intent.DEMO_REQUEST: "demo request",
    Intent.CONTACT_REQUEST: "contact request",
    Intent.INQUIRY: "product inquiry",
    Intent.SUPPORT: "support",
    Intent.COMPLAINT: "complaint",
    Intent.JOB: "job",
    Intent.PARTNERSHIP: "partnership",
    Intent.VENDOR_PITCH: "vendor pitch",
    Intent.SPAM: "spam",
    Intent.UNSUBSCRIBE: "unsubscribe",
    Intent.THANKS: "thanks",
    Intent.ENGAGEMENT: "engagement",
    Intent.UNKNOWN: "unknown",
}
PRIORITY: dict[Priority, str] = {
    Priority.P0: "now",
    Priority.P1: "today",
    Priority.P2: "this week",
    Priority.P3: "whenever",
}
NEXT_ACTION: dict[NextAction, str] = {
    NextAction.CALL: "call",
    NextAction.EMAIL: "e-mail",
    NextAction.QUALIFY: "qualify",
    NextAction.IGNORE: "nothing to do",
}
LANGUAGE = {"en": "English", "vi": "Vietnamese", "mixed": "English and Vietnamese"}
SOURCE = {
    "form": "form",
    "website_form": "website form",
    "contact_form": "contact form",
    "web": "website",
    "website": "website",
    "facebook": "Facebook",
    "instagram": "Instagram",
    "whatsapp": "WhatsApp",
    "zalo": "Zalo",
    "tiktok": "TikTok",
    "linkedin": "LinkedIn",
    "google_ads": "Google Ads",
    "csv_import": "CSV import",
    "api": "API",
    "email": "e-mail",
    "unknown": "unknown source",
}
#: As sentences of the domain name them: ``inquiry_price``, ``inquiry price``.
VALUES: Mapping[str, str] = {
    form: said
    for table in (INTENT, NEXT_ACTION)
    for member, said in table.items()
    for form in (member.value, member.value.replace("_", " "))
    if "_" in member.value and form != said
}


def sentence(text: str, values: Mapping[str, str] = VALUES) -> str:
    """A sentence that the domain wrote, with any value of a closed vocabulary in it put into words."""
    for value, said in values.items():
        text = text.replace(value, said)
    return text


def source(value: str) -> str:
    """Of a lead's source, which anybody may have named."""
    return SOURCE.get(value) or SOURCE.get(value.lower()) or value.replace("_", " ")


def of(lead: Any) -> Mapping[str, str]:
    """What templates of messages call ``words.…``: values of the lead as the beginning of a sentence."""
    said = {
        "intent": INTENT[lead.intent],
        "priority": PRIORITY[lead.priority],
        "next_action": NEXT_ACTION[lead.next_action],
        "source": source(lead.source),
        "lang": LANGUAGE.get(lead.lang, lead.lang),
    }
    return {name: text[:1].upper() + text[1:] for name, text in said.items()}
