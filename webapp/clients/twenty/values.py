"""How Twenty writes things down: numbers, domains, filters."""

import re

import phonenumbers


def phone_parts(e164: str | None) -> dict[str, str] | None:
    """Twenty's three fields of a phone number; None when there is none or it makes no sense."""
    if not e164:
        return None
    try:
        number = phonenumbers.parse(e164)
    except phonenumbers.NumberParseException:
        return None
    parts = {
        "primaryPhoneNumber": phonenumbers.national_significant_number(number),
        "primaryPhoneCallingCode": f"+{number.country_code}",
    }
    region = phonenumbers.region_code_for_number(number)
    return parts | ({"primaryPhoneCountryCode": region} if region and region.isalpha() else {})


def domain_of(url: str | None) -> str | None:
    """``https://www.Acme.com/x`` → ``acme.com``; None for nothing."""
    host = (url or "").strip().lower().rpartition("//")[2].split("/")[0].split(":")[0]
    return host.removeprefix("www.") or None


def like(text: str) -> str:
    """For the value of an ``ilike`` filter, which ends at a double quote and knows % and _ as wildcards."""
    return text.replace("\\", "").replace('"', "").replace("%", "\\%").replace("_", "\\_")


def quotable(text: str) -> str:
    """For a value inside double quotes of a filter; what would end it has no business there."""
    return re.sub(r'[\\"%()\[\],]', "", text)
