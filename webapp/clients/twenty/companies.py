"""The company of a lead's person: found by its domain, else its name, or made."""

import uuid
from collections.abc import Mapping
from typing import Any

from webapp.clients.crm import NAMESPACE
from webapp.clients.twenty.records import Records, is_duplicate, records_of
from webapp.clients.twenty.values import domain_of, like
from webapp.leads.errors import Permanent
from webapp.leads.ports import DeliveryRequest, Exchange, LeadSnapshot, Receipt, Refused
from webapp.leads.task_template import one_line


class Companies:
    def __init__(self, records: Records) -> None:
        self._records = records

    def send(self, request: DeliveryRequest) -> Receipt:
        """Found by its domain, else its name, or made; then the person is linked to it."""
        body = company_body(request.fields)
        if not body:
            return Receipt()  # nothing is known of a company
        company_id, exchange = self._company_id(request.lead, body)
        person = request.remote.get("person")
        if person is not None and self._records.patch("people", "person", person, {"companyId": company_id}) is None:
            raise Permanent("the person is not in Twenty any more")
        return Receipt(company_id, exchange)

    def _company_id(self, lead: LeadSnapshot, body: dict[str, Any]) -> tuple[str, Exchange]:
        found = self._find(body)
        if found is not None:
            return found
        key = body.get("domainName", {}).get("primaryLinkUrl") or str(body["name"]).casefold()
        made = {"id": str(uuid.uuid5(NAMESPACE, f"{lead.workspace_id}:company:{key}")), **body}
        try:
            receipt = self._records.create("companies", "company", made)
        except Refused as error:
            # Another delivery made it under the same domain a moment ago.
            if not is_duplicate(error) or (found := self._find(body)) is None:
                raise
            return found
        return str(receipt.remote_id), receipt.exchange

    def _find(self, body: dict[str, Any]) -> tuple[str, Exchange] | None:
        if "domainName" in body:
            wanted = f'domainName.primaryLinkUrl[ilike]:"%{like(body["domainName"]["primaryLinkUrl"])}%"'
        else:
            wanted = f'name[ilike]:"{like(str(body["name"]))}"'
        answer = self._records.call("GET", "/companies", params={"filter": wanted, "depth": "0", "limit": "10"})
        for company in records_of(answer, "companies"):
            theirs = domain_of((company.get("domainName") or {}).get("primaryLinkUrl"))
            if "domainName" not in body or theirs == body["domainName"]["primaryLinkUrl"]:
                return str(company["id"]), answer.exchange
        return None


def company_body(fields: Mapping[str, str]) -> dict[str, Any]:
    """Empty when nothing is known of a company."""
    name, domain = fields.get("company.name"), domain_of(fields.get("company.domain"))
    if not name and not domain:
        return {}
    body: dict[str, Any] = {"name": one_line(name or str(domain))}
    return body | ({"domainName": {"primaryLinkUrl": domain}} if domain else {})
