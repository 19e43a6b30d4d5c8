"""A public web site with all that a fetcher meets: robots.txt, structured data, odd encodings, traps.

Paths are in ``PAGES`` and below; ``site.robots`` is what ``/robots.txt`` says (a status, or its text), and
``site.pages[path] = …`` adds a page. It stores nothing and speaks HTTP/1.1 with one request a connection.
"""

import argparse
import contextlib
import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

CONTACT = """<!DOCTYPE html>
<html lang="en"><head><title>Contact – Acme</title>
<script type="application/ld+json">
{"@context": "https://schema.org", "@graph": [
  {"@type": "Organization", "@id": "#acme", "name": "Acme GmbH", "description": "Pumps &amp; valves since 1920",
   "url": "/", "logo": {"@type": "ImageObject", "url": "/logo.svg"}, "email": "info@acme.example",
   "telephone": "+49 30 901820", "sameAs": ["https://social.example/acme"],
   "address": {"@type": "PostalAddress", "streetAddress": "Beispielweg 1", "postalCode": "10115",
               "addressLocality": "Berlin", "addressCountry": "DE"},
   "contactPoint": [{"@type": "ContactPoint", "contactType": "sales", "email": "mailto:sales@acme.example"}]},
  {"@type": "Person", "name": "Jana M&uuml;ller", "jobTitle": "Head of Purchasing",
   "email": "jana.mueller@acme.example", "telephone": "+49 30 901821", "worksFor": {"@id": "#acme"}}
]}
</script></head>
<body><h1>Contact</h1>
<p>Write to <a href="mailto:info@acme.example?subject=Hello">info@acme.example</a>.
Fax: <a href="tel:+4930901899">+49 30 901899</a></p></body></html>"""

MICRODATA = """<!DOCTYPE html><html><head><title>Team</title></head><body>
<div itemscope itemtype="https://schema.org/LocalBusiness"><span itemprop="name">Bäckerei Ähre</span>
<div itemprop="address" itemscope itemtype="https://schema.org/PostalAddress">
<span itemprop="streetAddress">Hauptstraße 5</span> <span itemprop="addressLocality">Köln</span>
<span itemprop="addressCountry">Deutschland</span></div>
<a itemprop="email" href="mailto:laden@aehre.example">laden@aehre.example</a>
<span itemprop="telephone">0221 4710</span>
<div itemprop="employee" itemscope itemtype="https://schema.org/Person">
<span itemprop="name">Änne Groß</span>, <span itemprop="jobTitle">Meisterin</span>,
<a itemprop="email" href="mailto:aenne@aehre.example">E-Mail</a></div></div></body></html>"""

OPEN_GRAPH = """<html><head><title>Impressum</title>
<meta property="og:site_name" content="Contoso Ltd"><meta property="og:title" content="About Contoso">
<meta property="og:description" content="Makers of things"></head>
<body><p>Mail: desk [at] contoso [dot] example, or <a href="tel:+442079460958">call us</a>.</p></body></html>"""

LATIN_1 = '<html><head><title>Contact</title></head><body>Société Éclair – <a href="mailto:bonjour@eclair.example">Écrivez</a></body></html>'

Body = bytes | str


@dataclass
class Answer:
    status: int = 200
    body: Body = ""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html; charset=utf-8"})


def html(body: Body, **headers: str) -> Answer:
    return Answer(200, body, {"Content-Type": "text/html; charset=utf-8"} | headers)


def redirect(to: str, status: int = 302) -> Answer:
    return Answer(status, "", {"Location": to, "Content-Type": "text/html"})


PAGES: dict[str, Answer] = {
    "/contact": html(CONTACT),
    "/team": html(MICRODATA),
    "/about": html(OPEN_GRAPH),
    "/latin-1": Answer(
        200, LATIN_1.replace("–", "-").encode("latin-1"), {"Content-Type": "text/html; charset=iso-8859-1"}
    ),
    "/undeclared": Answer(200, LATIN_1.replace("–", "-").encode("cp1252"), {"Content-Type": "text/html"}),
    "/meta": Answer(
        200,
        LATIN_1.replace("<head>", '<head><meta charset="windows-1252">').encode("cp1252"),
        {"Content-Type": "text/html"},
    ),
    "/nothing": html("<html><body><p>Nothing to see.</p></body></html>"),
    "/private/staff": html('<a href="mailto:secret@acme.example">secret</a>'),
    "/moved": redirect("/contact", 301),
    "/to-private": redirect("http://10.0.0.7/contact"),
    "/to-file": redirect("file:///etc/passwd"),
    "/loop": redirect("/loop"),
    "/gone": Answer(410, "gone"),
    "/forbidden": Answer(403, "no"),
    "/broken": Answer(500, "oops"),
    "/busy": Answer(429, "later", {"Retry-After": "120"}),
    "/brochure": Answer(200, b"%PDF-1.7", {"Content-Type": "application/pdf"}),
    "/zipped": Answer(
        200, gzip.compress(CONTACT.encode()), {"Content-Type": "text/html; charset=utf-8", "Content-Encoding": "gzip"}
    ),
    "/bomb": Answer(
        200, gzip.compress(b"<html>" + b" " * 64_000_000), {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    ),
    "/huge": html("<html>" + "x" * 3_000_000),
}


class Site:
    """``site.url`` is ``http://127.0.0.1:port``. ``robots``: a status, a text, an answer, or None for 404. ``asked``: the paths
    that were asked for, in order, ``agents`` by whom, ``times`` when (monotonic)."""

    def __init__(self, *, robots: int | str | Answer | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.robots = robots
        self.pages: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = dict(PAGES)
        self.pages["/drip"] = _drip
        self.pages["/drip-headers"] = _drip_headers
        self.asked: list[str] = []
        self.agents: list[str] = []
        self.times: list[float] = []
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer((host, port), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def visits(self) -> list[str]:
        """Pages asked for, without robots.txt."""
        return [path for path in self.asked if path != "/robots.txt"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    _trickle(handler, b"<")


def _drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _trickle(handler, b"a")


def _trickle(handler: BaseHTTPRequestHandler, byte: bytes) -> None:
    site: Site = handler.site  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):
        while not site.closing.wait(0.05):
            handler.wfile.write(byte)
            handler.wfile.flush()


def _handler_for(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.site = site
            path = self.path.partition("?")[0]
            site.asked.append(path)
            site.agents.append(self.headers.get("User-Agent", ""))
            site.times.append(time.monotonic())
            answer = self._robots() if path == "/robots.txt" else site.pages.get(path, Answer(404, "no such page"))
            if callable(answer):
                answer(self)
                return
            body = answer.body.encode() if isinstance(answer.body, str) else answer.body
            with contextlib.suppress(OSError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def _robots(self) -> Answer:
            if isinstance(site.robots, Answer):
                return site.robots
            if isinstance(site.robots, str):
                return Answer(200, site.robots, {"Content-Type": "text/plain"})
            return Answer(site.robots or 404, "")

        def log_message(self, *_: Any) -> None:
            """Tests ask ``site.asked``."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the site, to try a fetcher on.")
    parser.add_argument("--port", type=int, default=8099)
    with Site(port=parser.parse_args().port) as site:
        print(site.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
