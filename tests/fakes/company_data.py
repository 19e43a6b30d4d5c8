"""A stand-in of company-data and e-mail-verification APIs in the shapes of Clearbit, Apollo, People Data Labs and Hunter.

``GET /clearbit/companies/find?domain=``, ``GET /apollo/organizations/enrich?domain=`` (key in ``X-Api-Key``),
``GET /pdl/company/enrich?website=&api_key=``, ``GET /hunter/email-verifier?email=&api_key=``. Companies are known by
domain; everybody else is a 404 (Clearbit, PDL), or an empty answer (Apollo).
"""

import argparse
from typing import Any

from tests.fakes.server import FakeServer, Request, Response, main

KEY = "data-test-key"

COMPANIES: dict[str, dict[str, Any]] = {
    "acme-pumps.de": {
        "name": "Acme Pumps GmbH", "about": "Industrial pumps and valves", "employees": 240, "country": "DE",
        "state": "Berlin", "city": "Berlin", "zip": "10115", "industry": "Machinery", "naics": "333914", "sic": "3561",
        "zone": "Europe/Berlin", "linkedin": "company/acme-pumps", "logo": "https://logo.example/acme-pumps.de",
    },
    "saigonclinic.vn": {
        "name": "Saigon Clinic", "about": "Private clinic", "employees": 12, "country": "VN", "state": "Hồ Chí Minh",
        "city": "Ho Chi Minh City", "zip": "700000", "industry": "Hospital & Health Care", "naics": "621111",
        "sic": "8011", "zone": "Asia/Ho_Chi_Minh", "linkedin": "company/saigon-clinic",
        "logo": "https://logo.example/saigonclinic.vn",
    },
}  # fmt: skip


class CompanyDataFake(FakeServer):
    """``companies``: domain → what is known; ``mailboxes``: address → Hunter's status. ``error`` words a refusal."""

    def __init__(self, *, key: str = KEY, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key = key
        self.companies = {domain: dict(known) for domain, known in COMPANIES.items()}
        self.mailboxes: dict[str, str] = {"gone@acme-pumps.de": "invalid", "all@acme-pumps.de": "accept_all"}
        self.raw: Response | None = None  # answered instead, whatever is asked

    def state(self) -> Any:
        return {"companies": self.companies, "mailboxes": self.mailboxes}

    def error(self, status: int) -> Response:
        words = {401: "Invalid API key", 404: "Unknown company", 429: "Over rate limit"}.get(status, "Internal error")
        return Response(status, {"error": {"type": f"error_{status}", "message": words}})

    def handle(self, request: Request) -> Response:
        if self.raw is not None:
            return self.raw
        asked = request.query
        match request.path:
            case "/clearbit/companies/find":
                return self._keyed(request, "bearer", lambda: self._clearbit(asked.get("domain", "")))
            case "/apollo/organizations/enrich":
                return self._keyed(request, "header", lambda: self._apollo(asked.get("domain", "")))
            case "/pdl/company/enrich":
                return self._keyed(request, "query", lambda: self._pdl(asked.get("website", "")))
            case "/hunter/email-verifier":
                return self._keyed(request, "query", lambda: self._hunter(asked.get("email", "")))
        return self.error(404)

    def _keyed(self, request: Request, where: str, answer: Any) -> Response:
        given = {
            "bearer": request.headers.get("authorization", "").removeprefix("Bearer "),
            "header": request.headers.get("x-api-key", ""),
            "query": request.query.get("api_key", ""),
        }[where]
        return answer() if given == self.key else self.error(401)  # type: ignore[no-any-return]

    def _clearbit(self, domain: str) -> Response:
        one = self.companies.get(domain)
        if one is None:
            return self.error(404)
        return Response(
            200,
            {
                "id": "c1", "name": one["name"], "domain": domain, "description": one["about"], "logo": one["logo"],
                "category": {"sector": "Industrials", "industry": one["industry"], "sicCode": one["sic"],
                             "naicsCode": one["naics"]},
                "metrics": {"employees": one["employees"], "employeesRange": "51-250"},
                "geo": {"city": one["city"], "state": one["state"], "countryCode": one["country"],
                        "postalCode": one["zip"]},
                "timeZone": one["zone"], "linkedin": {"handle": one["linkedin"]},
            },
        )  # fmt: skip

    def _apollo(self, domain: str) -> Response:
        one = self.companies.get(domain)
        if one is None:
            return Response(200, {"organization": None})
        told = {
            "name": one["name"], "website_url": f"http://www.{domain}", "primary_domain": domain,
            "industry": one["industry"].lower(), "estimated_num_employees": one["employees"],
            "short_description": one["about"], "logo_url": one["logo"],
            "linkedin_url": f"http://www.linkedin.com/{one['linkedin']}", "city": one["city"], "state": one["state"],
            "country": {"DE": "Germany", "VN": "Vietnam"}.get(one["country"], one["country"]),
            "postal_code": one["zip"], "naics_codes": [one["naics"]], "sic_codes": [one["sic"]],
        }  # fmt: skip
        return Response(200, {"organization": told})

    def _pdl(self, website: str) -> Response:
        one = self.companies.get(website)
        if one is None:
            return self.error(404)
        place = {"locality": one["city"].lower(), "region": one["state"].lower(), "country": {"DE": "germany", "VN": "vietnam"}[one["country"]],
                 "postal_code": one["zip"]}  # fmt: skip
        return Response(
            200,
            {
                "status": 200, "name": one["name"].lower(), "display_name": one["name"], "size": "201-500",
                "employee_count": one["employees"], "industry": one["industry"].lower(), "summary": one["about"],
                "location": place, "naics": [{"naics_code": one["naics"]}], "profiles": [f"linkedin.com/{one['linkedin']}"],
            },
        )  # fmt: skip

    def _hunter(self, email: str) -> Response:
        status = self.mailboxes.get(email, "valid")
        return Response(200, {"data": {"status": status, "score": 97, "email": email, "mx_records": True}})


def _make(arguments: argparse.Namespace) -> CompanyDataFake:
    return CompanyDataFake(port=arguments.port, latency=arguments.latency)


if __name__ == "__main__":
    main(_make)
