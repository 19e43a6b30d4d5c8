"""The fetcher of public pages against a real site."""

import socket
import threading
import time
import uuid

import pytest

from tests.fakes.site import Answer, Site, html, redirect
from webapp.clients import guard
from webapp.clients.pages import PRODUCT, PageFetcher, PageLimits
from webapp.leads.errors import Permanent, Transient
from webapp.leads.ports import FetchTask, Throttled
from webapp.leads.states import FetchKind

HERE = guard.networks(["127.0.0.0/8"])
#: Nobody waits in a test that is not about waiting.
HASTY = PageLimits(gap=0.0, total=10.0)


@pytest.fixture
def site():
    with Site() as running:
        yield running


def fetcher(limits: PageLimits = HASTY, **over) -> PageFetcher:
    return PageFetcher(**({"allow": HERE, "limits": limits} | over))


def task(url: str) -> FetchTask:
    return FetchTask(uuid.uuid4(), uuid.uuid4(), FetchKind.PAGE, url, {})


class TestPages:
    def test_a_contact_page_becomes_leads(self, site):
        found = fetcher().fetch(task(f"{site.url}/contact"))
        assert [lead.email for lead in found.leads] == [
            "info@acme.example", "sales@acme.example", "jana.mueller@acme.example",
        ]  # fmt: skip
        assert found.result["url"] == f"{site.url}/contact"
        assert site.asked == ["/robots.txt", "/contact"]

    def test_who_asks_says_so(self, site):
        fetcher(contact_url="https://console.example").get(f"{site.url}/about")
        assert set(site.agents) == {f"{PRODUCT}/1.0 (+https://console.example)"}

    @pytest.mark.parametrize("path", ["/latin-1", "/meta", "/undeclared"])
    def test_the_encoding_is_found(self, site, path):
        page, _ = fetcher().get(site.url + path)
        assert "Société Éclair" in page.html

    def test_a_zipped_page_is_unzipped(self, site):
        assert len(fetcher().fetch(task(f"{site.url}/zipped")).leads) == 3

    def test_a_page_without_contacts_has_none(self, site):
        found = fetcher().fetch(task(f"{site.url}/nothing"))
        assert found.leads == [] and found.result["contacts"] == 0

    @pytest.mark.parametrize(
        ("path", "kind", "words"),
        [
            ("/nowhere", Permanent, "no such page"),
            ("/gone", Permanent, "gone for good"),
            ("/forbidden", Permanent, "does not let us in"),
            ("/brochure", Permanent, "application/pdf"),
            ("/huge", Permanent, "larger than 2 MiB"),
            ("/bomb", Permanent, "larger than 2 MiB"),
            ("/broken", Transient, "problem of its own"),
            ("/busy", Transient, "come back later"),
        ],
    )
    def test_what_is_no_page_is_said_in_words(self, site, path, kind, words):
        with pytest.raises(kind, match=words):
            fetcher().get(site.url + path)

    def test_it_comes_back_when_asked_to(self, site):
        with pytest.raises(Transient) as raised:
            fetcher().get(f"{site.url}/busy")
        assert raised.value.retry_after == 120

    def test_a_site_that_is_not_there(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(Transient, match="could not be reached"):
                fetcher().get(f"http://127.0.0.1:{taken.getsockname()[1]}/")

    def test_a_name_that_nobody_has(self):
        with pytest.raises(Transient, match="no site of that name"):
            fetcher().get("http://no-such-host.invalid/")

    @pytest.mark.parametrize("path", ["/drip", "/drip-headers"])
    def test_a_page_that_trickles_is_left(self, site, path):
        with pytest.raises(Transient, match=r"took longer than 0\.5 s"):
            fetcher(PageLimits(gap=0.0, total=0.5)).get(site.url + path)


class TestRedirects:
    def test_one_is_followed(self, site):
        found = fetcher().fetch(task(f"{site.url}/moved"))
        assert found.result["url"] == f"{site.url}/contact" and len(found.leads) == 3

    def test_not_for_ever(self, site):
        with pytest.raises(Permanent, match="more than 5 times"):
            fetcher().get(f"{site.url}/loop")
        assert site.visits() == ["/loop"] * 6

    def test_not_into_a_private_network(self, site):
        with pytest.raises(Permanent, match="private network"):
            fetcher().get(f"{site.url}/to-private")

    def test_a_public_name_with_a_private_address_is_refused_as_well(self, site):
        port = site.url.rsplit(":", 1)[1]
        with pytest.raises(Permanent, match="private network"):
            fetcher(allow=guard.networks(["127.0.0.1/32"])).get(redirecting(site, f"http://127.0.0.2:{port}/contact"))
        assert "/contact" not in site.asked

    def test_to_nothing_but_the_web(self, site):
        with pytest.raises(Permanent, match="Only http"):
            fetcher().get(f"{site.url}/to-file")

    @pytest.mark.parametrize(
        "to", ["http://[", "http://user:secret@127.0.0.1/", "http://127.0.0.1:99999/", "http:///x"]
    )
    def test_not_to_nonsense(self, site, to):
        with pytest.raises(Permanent):
            fetcher().get(redirecting(site, to))

    def test_robots_are_asked_at_each_place(self, site):
        site.robots = "User-agent: *\nDisallow: /private/"
        with pytest.raises(Permanent, match=r"robots\.txt"):
            fetcher().get(redirecting(site, "/private/staff"))
        assert "/private/staff" not in site.asked


def redirecting(site: Site, to: str) -> str:
    site.pages["/away"] = redirect(to)
    return f"{site.url}/away"


class TestRobots:
    @pytest.mark.parametrize(
        "robots",
        [
            "User-agent: *\nDisallow: /",
            f"User-agent: {PRODUCT.lower()}\nDisallow: /contact",
            "User-agent: *\nDisallow: /*tact$\nAllow: /con",
            "\ufeffUser-agent: *\nDisallow: /contact",
        ],
    )
    def test_what_it_forbids_is_not_fetched(self, site, robots):
        site.robots = robots
        with pytest.raises(Permanent, match=r"robots\.txt asks"):
            fetcher().get(f"{site.url}/contact")
        assert site.visits() == []

    @pytest.mark.parametrize(
        "robots",
        [None, 403, 401, "", "<html>not found</html>", f"User-agent: *\nDisallow: /\n\nUser-agent: {PRODUCT}\nAllow: /",
         "User-agent: *\nDisallow: /con\nAllow: /contact"],
    )  # fmt: skip
    def test_what_it_does_not_forbid_is(self, site, robots):
        site.robots = robots
        fetcher().get(f"{site.url}/contact")
        assert site.visits() == ["/contact"]

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_while_it_cannot_be_read_nothing_is_fetched(self, site, status):
        site.robots = status
        with pytest.raises(Transient, match="left alone") as raised:
            fetcher().get(f"{site.url}/contact")
        assert raised.value.retry_after == pytest.approx(HASTY.robots_retry, abs=1)
        assert site.visits() == []

    def test_a_site_that_cannot_say_is_not_asked_again_at_once(self, site):
        site.robots = 503
        one = fetcher()
        for path in ("/contact", "/team"):
            with pytest.raises(Transient, match="left alone") as raised:
                one.get(site.url + path)
            assert 0 < raised.value.retry_after <= HASTY.robots_retry
        assert site.asked == ["/robots.txt"]

    def test_it_is_read_once_for_many_pages(self, site):
        one = fetcher()
        for path in ("/contact", "/team", "/about"):
            one.get(site.url + path)
        assert site.asked.count("/robots.txt") == 1

    def test_and_again_when_it_is_old(self, site):
        one = fetcher(PageLimits(gap=0.0, robots_seconds=0.0))
        one.get(f"{site.url}/contact")
        site.robots = "User-agent: *\nDisallow: /"
        with pytest.raises(Permanent):
            one.get(f"{site.url}/team")

    def test_a_crawl_delay_is_handed_on(self, site):
        site.robots = "User-agent: *\nCrawl-delay: 30"
        assert fetcher().fetch(task(f"{site.url}/about")).pause == 30

    def test_one_that_asks_for_hours_is_a_refusal(self, site):
        site.robots = "User-agent: *\nCrawl-delay: 7200"
        with pytest.raises(Permanent, match="too long"):
            fetcher().get(f"{site.url}/about")

    def test_its_redirects_are_guarded_too(self, site):
        with Site() as other:
            other.robots = "User-agent: *\nDisallow: /"
            site.robots = redirect(f"{other.url}/robots.txt")
            with pytest.raises(Permanent, match=r"robots\.txt asks"):
                fetcher().get(f"{site.url}/contact")
            site.robots = redirect("http://10.0.0.9/robots.txt")
            with pytest.raises(Permanent, match="private network"):
                fetcher().get(f"{site.url}/contact")
        assert site.visits() == []


def in_turn(site, began, gap):
    """How many pages were asked for, none before its turn. Between two arrivals there may be less than the gap: the first
    of them may have been on its way for long."""
    visits = sorted(at for at, path in zip(site.times, site.asked, strict=True) if path != "/robots.txt")
    assert all(at - began >= number * gap for number, at in enumerate(visits))
    return len(visits)


class TestManners:
    def test_a_second_request_waits_its_turn(self, site):
        one = fetcher(PageLimits(gap=0.3, patience=5.0))
        began = time.monotonic()
        one.get(f"{site.url}/about")
        one.get(f"{site.url}/team")
        assert in_turn(site, began, 0.3) == 2

    def test_a_redirect_waits_as_well(self, site):
        began = time.monotonic()
        fetcher(PageLimits(gap=0.3)).get(f"{site.url}/moved")
        assert in_turn(site, began, 0.3) == 2

    def test_a_long_wait_is_not_a_threads(self, site):
        site.robots = "User-agent: *\nCrawl-delay: 60"
        one = fetcher(PageLimits(gap=1.0))
        one.get(f"{site.url}/about")
        with pytest.raises(Throttled) as raised:
            one.get(f"{site.url}/team")
        assert 50 < raised.value.retry_after <= 60
        assert site.visits() == ["/about"]

    def test_a_redirect_does_not_wait_for_the_crawl_delay_of_its_own_visit(self, site):
        site.robots = "User-agent: *\nCrawl-delay: 60"
        page, _ = fetcher(PageLimits(gap=0.0)).get(f"{site.url}/moved")
        assert page.url.endswith("/contact")

    def test_threads_take_turns(self, site):
        one = fetcher(PageLimits(gap=0.2, patience=5.0))
        began = time.monotonic()
        one.get(f"{site.url}/nothing")
        threads = [threading.Thread(target=one.get, args=(f"{site.url}/about",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert in_turn(site, began, 0.2) == 4

    def test_an_unstated_type_that_is_html_is_read(self, site):
        site.pages["/bare"] = Answer(200, " <p>a@acme.example</p>", {})
        assert len(fetcher().fetch(task(f"{site.url}/bare")).leads) == 1
        site.pages["/text"] = Answer(200, "a@acme.example", {})
        with pytest.raises(Permanent, match="no web page"):
            fetcher().get(f"{site.url}/text")

    def test_xhtml_is_read(self, site):
        page = html('<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body>'
                    "<p>é a@acme.example</p></body></html>")  # fmt: skip
        page.headers["Content-Type"] = "application/xhtml+xml"
        site.pages["/xhtml"] = page
        assert len(fetcher().fetch(task(f"{site.url}/xhtml")).leads) == 1
