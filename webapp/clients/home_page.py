"""What a company says of itself on its home page: structured data and Open Graph, read as pages are (``pages``)."""

from collections.abc import Sequence

from webapp.clients import page_facts
from webapp.clients.guard import Network
from webapp.clients.pages import Page, PageFetcher, PageLimits
from webapp.leads.errors import Permanent, Transient
from webapp.leads.ports import Throttled
from webapp.leads.types import Fact

#: Where a domain's home page may be, the likeliest first.
PLACES = ("https://{domain}/", "https://www.{domain}/", "http://{domain}/")


class HomePages:
    """``seconds``: for one place of a home page. ``places``: where to look, with ``{domain}`` in it."""

    def __init__(
        self, *, seconds: float, allow: Sequence[Network] = (), contact_url: str = "", places: Sequence[str] = PLACES
    ) -> None:
        # One visit in weeks, of two requests: no need to leave a second between them.
        limits = PageLimits(
            max_bytes=1024 * 1024, connect=min(3.0, seconds), read=min(5.0, seconds), total=seconds, gap=0.1
        )
        self._pages = PageFetcher(allow=allow, contact_url=contact_url, limits=limits)
        self._places = tuple(places)

    def home_page(self, domain: str) -> list[Fact]:
        """Facts of the company; none where the page says nothing. Permanent when there is no page to be had, with the
        reason; Transient when it does not answer."""
        page = self._page(domain)
        return _facts(page_facts.extract(page.html, page.url))

    def _page(self, domain: str) -> Page:
        last: Exception | None = None
        for place in self._places:
            try:
                return self._pages.get(place.format(domain=domain))[0]
            except Throttled:
                raise
            except Permanent:
                raise
            except Transient as failed:
                if last is None or not failed.message.startswith("There is no site"):
                    last = failed
                if not failed.message.startswith(("There is no site", "The site could not", "The site's certificate")):
                    break  # it is there, and slow or in trouble
        if last is None or "There is no site" in str(last):
            raise Permanent("there is no site of that name")
        raise last


def _facts(found: page_facts.PageFacts) -> list[Fact]:
    company = found.company
    values: tuple[tuple[str, object, float], ...] = (
        ("company_name", company.name, 0.8),
        ("company_description", company.description, 0.75),
        ("company_logo", company.logo, 0.75),
        ("company_address", company.address, 0.75),
        ("company_employees", company.employees, 0.6),
        ("company_social", list(company.links), 0.8),
        ("state", company.state, 0.55),
        ("city", company.city, 0.6),
        ("postal_code", company.postal_code, 0.6),
    )
    facts = [Fact(name, value, "", sure) for name, value, sure in values if value]
    if company.country:
        facts.append(Fact("country", company.country, "", 0.65, note="where the company says it is"))
    if found.title and not company.name:
        facts.append(Fact("company_description", found.title, "", 0.4, note="the page's title"))
    return facts
