"""Callbacks: the result of a lead, posted to the address that came with it."""

from urllib.parse import unquote, urlsplit

from webapp.leads.kinds.base import MAX_TEXT, Field, Guarantee, Kind, Step, Unknown, url_problem
from webapp.leads.kinds.webhook import SECRET
from webapp.leads.states import DestinationKind

#: The event types, and so the actions: a lead's first run is done, or was given up.
PROCESSED, FAILED = "lead.processed", "lead.failed"
_PORTS = {"http": 80, "https": 443}


def address_problem(url: str) -> str | None:
    """What is wrong with an address that a lead brought along, whoever allows it."""
    if len(url) > MAX_TEXT:
        return f"must have at most {MAX_TEXT:,} characters"
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}' for character in url):
        return "must be a URL in ASCII, with everything else percent-encoded"
    if wrong := url_problem(url):
        return wrong
    parts = urlsplit(url)
    if parts.fragment:
        return "must not have a part after #"
    if "%25" in parts.path:
        return "must not have an encoded % in its path"  # some servers decode twice
    # What follows a semicolon belongs to the part before it, which some servers look at without it.
    if {".", ".."} & {part.partition(";")[0] for part in unquote(parts.path).replace("\\", "/").split("/")}:
        return "must not have a part . or .. in its path"
    return None


def covers(allowed: str, url: str) -> bool:
    """Is ``url`` on the host of ``allowed``, at or below its path? Both are good addresses."""
    ours, theirs = urlsplit(allowed), urlsplit(url)
    if (ours.scheme, ours.hostname, ours.port or _PORTS[ours.scheme]) != (
        theirs.scheme,
        theirs.hostname,
        theirs.port or _PORTS[theirs.scheme],
    ):
        return False
    top = ours.path.rstrip("/")
    return theirs.path == top or theirs.path.startswith(f"{top}/") or not top


def _place_problem(url: str) -> str | None:
    return address_problem(url) or ("must not have a part after ?" if urlsplit(url).query else None)


KIND = Kind(
    kind=DestinationKind.CALLBACK,
    label="Callback",
    about=(
        "Whoever sends a lead by API with a callback_url is told its result there, once its run is done; signed as Standard "
        "Webhooks has it. One of these for each host, so that one that is down holds up no other."
    ),
    fields=(
        Field(
            "url",
            "Where callbacks may go",
            "url",
            "A host, such as https://hooks.example.com, or the beginning of an address there. Any other is refused.",
            check=_place_problem,
            receives_secret=False,
        ),
        SECRET,
    ),
    steps=(Step(PROCESSED, 0, "result"), Step(FAILED, 0, "notice of a failed run")),
    unknown=Unknown.REPEATS,
    guarantees=(
        Guarantee(
            "result",
            "at least once",
            "a receiver cannot be asked; it deduplicates by webhook-id, which is the same on every attempt",
        ),
    ),
    testable=False,
    own_rules="leads that came with a callback_url of this host",
)
