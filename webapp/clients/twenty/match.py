"""Is somebody in Twenty already? Person by e-mail or number, company by domain, their opportunities, and whose they are.

Four reads at most, each with a filter on an indexed field. A key that may not read some of it (403) is told less.
"""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from webapp.clients.crm import canonical_email
from webapp.clients.twenty.records import Record, Records, records_of
from webapp.clients.twenty.values import phone_parts, quotable
from webapp.leads.ports import LOST_STAGES, WON_STAGES, Refused, same_stage
from webapp.leads.task_template import one_line
from webapp.leads.types import Fact

_PAGE = "60"
_OWNERS_SECONDS = 300.0
#: Answers that mean: the key's role may not read such records, or the server has no such object.
_NOT_OURS = frozenset({400, 403, 404})
_WON = frozenset(map(same_stage, WON_STAGES))
_LOST = frozenset(map(same_stage, LOST_STAGES))


class Matching:
    """:class:`leads.ports.CrmMatch`."""

    def __init__(self, records: Records, clock: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock
        self._owners: dict[str, str] = {}
        self._owners_until = float("-inf")

    def match(self, email: str | None, phone: str | None, domain: str | None) -> list[Fact]:
        """``crm_*``; empty when neither the person nor the company is there. Errors as of ``HttpClient.call``."""
        person = self._find_person(email, phone)
        company = self._company_of(person, domain)
        if person is None and company is None:
            return []
        deals = self._deals_of(person, company)
        won = [deal for deal in deals if same_stage(_stage(deal)) in _WON]
        open_deals = [deal for deal in deals if same_stage(_stage(deal)) not in _WON | _LOST]
        facts = [Fact("crm_customer", bool(won), "", 0.95, note=_why(won, person, company))]
        if person:
            facts.append(Fact("crm_person_id", str(person["id"]), "", 1.0))
        if company:
            facts.append(Fact("crm_company_id", str(company["id"]), "", 1.0))
        if open_deals:
            deal = open_deals[0]
            note = f"stage {_stage(deal).replace('_', ' ').lower()}" if _stage(deal) else ""
            facts.append(
                Fact("crm_open_deal", one_line(deal.get("name") or "") or "without a name", "", 0.95, note=note)
            )
        owner = self._owner_of([*open_deals, *won], company)
        return facts + ([owner] if owner else [])

    def _find_person(self, email: str | None, phone: str | None) -> Record | None:
        if email:
            found = self._read_some("people", f'emails.primaryEmail[eq]:"{quotable(canonical_email(email))}"')
            if found:
                return found[0]
        parts = phone_parts(phone)
        if parts:
            for one in self._read_some("people", f'phones.primaryPhoneNumber[eq]:"{parts["primaryPhoneNumber"]}"'):
                theirs = (one.get("phones") or {}).get("primaryPhoneCallingCode")
                if theirs in (None, "", parts["primaryPhoneCallingCode"]):
                    return one
        return None

    def _company_of(self, person: Record | None, domain: str | None) -> Record | None:
        if person and isinstance(person.get("companyId"), str):
            found = self._read_some("companies", f'id[eq]:"{quotable(person["companyId"])}"')
            if found:
                return found[0]
        if not domain:
            return None
        # Stored as an address, with or without scheme and www; "acme.com" must not find "notacme.com".
        for one in self._read_some("companies", f'domainName.primaryLinkUrl[ilike]:"%{quotable(domain)}%"'):
            if _host((one.get("domainName") or {}).get("primaryLinkUrl")) == domain:
                return one
        return None

    def _deals_of(self, person: Record | None, company: Record | None) -> list[Record]:
        """Newest first."""
        wanted = []
        if company:
            wanted.append(f'companyId[eq]:"{quotable(str(company["id"]))}"')
        if person:
            wanted.append(f'pointOfContactId[eq]:"{quotable(str(person["id"]))}"')
        text = wanted[0] if len(wanted) == 1 else f"or({','.join(wanted)})"
        found = self._read_some("opportunities", text)
        return sorted(found, key=lambda deal: str(deal.get("createdAt") or ""), reverse=True)

    def _owner_of(self, deals: Sequence[Record], company: Record | None) -> Fact | None:
        for record, field, what in (
            *((deal, "ownerId", "owner of the opportunity") for deal in deals),
            *(((company, "accountOwnerId", "account owner"),) if company else ()),
        ):
            email = self._email_of(record.get(field))
            if email:
                return Fact("crm_owner", email, "", 0.95, note=what)
        return None

    def _email_of(self, member_id: Any) -> str | None:
        """The member's e-mail address."""
        if not isinstance(member_id, str):
            return None
        if self._clock() >= self._owners_until:
            members = {}
            try:
                for one in self._records.all("workspaceMembers"):
                    if isinstance(one.get("userEmail"), str):
                        members[str(one.get("id"))] = one["userEmail"].lower()
            except Refused as error:  # the key's role may not read members
                if error.exchange.http_status not in _NOT_OURS:
                    raise
            self._owners, self._owners_until = members, self._clock() + _OWNERS_SECONDS
        return self._owners.get(member_id)

    def _read_some(self, plural: str, wanted: str) -> list[Record]:
        """One page; none where the key's role may not read such records, or the server has no such object."""
        params = {"depth": "0", "limit": _PAGE, "filter": wanted}
        try:
            answer = self._records.call("GET", f"/{plural}", params=params)
        except Refused as error:
            if error.exchange.http_status in _NOT_OURS and plural != "people":
                return []
            raise
        return [one for one in records_of(answer, plural) if one.get("id")]


def _stage(deal: Record) -> str:
    return str(deal.get("stage") or "").upper()


def _why(won: Sequence[Record], person: Record | None, company: Record | None) -> str:
    name = one_line((company or {}).get("name") or "") or "the company"
    if won:
        return f"a sale was made: {one_line(won[0].get('name') or '') or 'an opportunity without a name'}"
    if person:
        return "in the CRM, without a sale so far"
    return f"{name} is in the CRM, this person is not"


def _host(url: Any) -> str:
    text = str(url or "").strip().lower()
    try:
        host = urlsplit(text if "://" in text else f"https://{text}").hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.")
