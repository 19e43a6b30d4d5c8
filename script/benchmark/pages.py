"""The queue, a lead's page and the lists with 100,000 leads: time, and the web server's CPU, which others who work on the
same machine do not change."""

import http.client
import re
import statistics
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import psutil

from benchmark.intake import connect
from benchmark.seed import seed
from benchmark.stack import Stack

LEADS = 100_000
REPEATS = 30
#: So that each process and connection has been asked, and PostgreSQL has planned for good.
WARM = 20

#: What a reviewer asks for: every filter alone, some together, and pages deep in.
QUERIES: dict[str, dict[str, str]] = {
    "waiting": {},
    "all": {"view": "all"},
    "escalate": {"view": "escalate"},
    "draft": {"view": "draft"},
    "auto": {"view": "auto"},
    "decided": {"view": "decided"},
    "mine": {"view": "mine"},
    "overdue": {"view": "overdue"},
    "manual review": {"view": "manual"},
    "waits for its team": {"view": "backlog"},
    "due first": {"view": "waiting", "sort": "due"},
    "intent": {"view": "all", "intent": "complaint"},
    "rare intent": {"view": "waiting", "intent": "thanks"},
    "priority": {"view": "all", "priority": "P0"},
    "source": {"view": "all", "source": "google_ads"},
    "unassigned": {"view": "all", "assignee": "none"},
    "text": {"view": "all", "q": "báo giá"},
    "text, nothing found": {"view": "all", "q": "zzzzqqq"},
    "phone": {"view": "all", "q": "0912243292"},
    "three together": {"view": "waiting", "intent": "inquiry", "priority": "P2", "q": "hàng"},
}

#: What htmx asks for when a lead is opened in the list that stands there.
IN_PLACE = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": "div#pane"}
#: Other lists.
LISTS = ("/runs", "/runs?status=failed", "/deliveries", "/deliveries?state=dead", "/alerts", "/imports")


class Browser:
    """A logged-in session on one kept-alive connection."""

    def __init__(self, stack: Stack) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
        self.cookies: dict[str, str] = {}
        form = self.get("/login")
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form)
        fields = {
            "email": "admin@localhost",
            "password": "benchmark benchmark",
            "csrf_token": token[1] if token else "",
        }
        status = self._send("POST", "/login", urlencode(fields))[0]
        if status != 302:
            raise RuntimeError(f"the log-in answered {status}")

    def _send(
        self, method: str, path: str, body: str | None = None, more: dict[str, str] | None = None
    ) -> tuple[int, str]:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} | (more or {})
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, text

    def get(self, path: str, headers: dict[str, str] | None = None) -> str:
        status, text = self._send("GET", path, more=headers)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        return text

    def timed(self, path: str, headers: dict[str, str] | None = None) -> tuple[float, str]:
        """Milliseconds from request to last byte, on loopback: the server's time and a little more."""
        started = time.perf_counter()
        text = self.get(path, headers)
        return (time.perf_counter() - started) * 1000, text


def p95(times: list[float]) -> float:
    return round(statistics.quantiles(times, n=20)[-1], 1)


def measure(stack: Stack) -> dict[str, Any]:
    seed(stack, LEADS)
    with stack.web() as web:
        browser, cpu = Browser(stack), cpu_of(psutil.Process(web.pid))
        filters = {name: _filter(browser, query, cpu) for name, query in QUERIES.items()}
        with connect(stack.database_url) as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM leads ORDER BY random() LIMIT 60")]
        paths = [f"/queue/{lead_id}" for lead_id in ids]
        pages = {
            "lead": _pages(browser, paths, cpu),
            "lead, opened in the list": _pages(browser, paths, cpu, IN_PLACE),
        } | {path: _pages(browser, [path] * REPEATS, cpu) for path in LISTS}
    worst = max(filters, key=lambda name: filters[name]["p95_ms"])
    return {
        "leads": LEADS,
        "queue_worst_p95_ms": filters[worst]["p95_ms"],
        "queue_worst": worst,
        "queue": filters,
        "pages": pages,
    }


def cpu_of(first: psutil.Process) -> Callable[[], float]:
    """Milliseconds of CPU that the server's processes have had."""

    def spent() -> float:
        times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        return sum(one.user + one.system for one in times) * 1000

    return spent


def _filter(browser: Browser, query: dict[str, str], cpu: Callable[[], float]) -> dict[str, float]:
    """First page many times, then every page on for a while."""
    path = "/queue?" + urlencode(query)
    for _ in range(WARM):
        browser.get(path)
    before = cpu()
    times = [browser.timed(path)[0] for _ in range(REPEATS)]
    for _ in range(REPEATS):
        took, text = browser.timed(path)
        times.append(took)
        following = re.search(r'<a[^>]*rel="next"[^>]*>', text)
        link = following and re.search(r'href="([^"]+)"', following[0])
        if not link:
            break
        path = link[1].replace("&amp;", "&")
    return _figures(times, cpu() - before) | {"pages": len(times) - REPEATS}


def _pages(
    browser: Browser, paths: list[str], cpu: Callable[[], float], headers: dict[str, str] | None = None
) -> dict[str, float]:
    for path in paths[:WARM]:
        browser.get(path, headers)
    before = cpu()
    times = [browser.timed(path, headers)[0] for path in paths]
    return _figures(times, cpu() - before)


def _figures(times: list[float], cpu_ms: float) -> dict[str, float]:
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": p95(times),
        "cpu_ms": round(cpu_ms / len(times), 1),
    }
