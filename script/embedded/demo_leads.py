"""The demo's leads: half of the project's sample set, by the door of its channel.

The set's labels never travel with a lead; `demo_review` uses them to decide as a person would.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import requests
from pydantic import EmailStr, TypeAdapter, ValidationError

from embedded.paths import PROJECT
from webapp.leads import verdict

SAMPLES = PROJECT / "tests" / "data" / "leads.jsonl"
OTHERS = PROJECT / "tests" / "data" / "messages_b.jsonl"
LEADS, UNSURE = 200, 90
SURE_FROM = 0.85
"""A new workspace's threshold."""

PAGE_ID = "1029384756"
COMMENTS_A_BODY = 20
AGAIN = 3
"""So many people press the form's button a second time."""

FORMS = ("website_form", "google_ads")
_NAMESPACE = uuid.UUID("0d3f0f43-5d0b-5b41-9a5e-0a6a4c0c6d21")
_EMAIL = TypeAdapter(EmailStr)

Sample = dict[str, Any]
Call = tuple[str, dict[str, Any], dict[str, str], int]
"""Path, body, further headers, and how many leads it brings."""


@lru_cache(maxsize=1)
def samples() -> list[Sample]:
    """LEADS of the set, in its order. Of many the rules are not sure, since what waits for a person is what a newcomer
    wants to see: those of the set, and people of the set with words of another one that the rules have not learned."""
    whole = _lines(SAMPLES)
    unsure = [one for one in whole if _unsure(one["message"])][:UNSURE]
    rest = [one for one in whole if one not in unsure]
    # Evenly from all of the rest, or the languages and channels of its beginning would be all there is.
    wanted = LEADS - len(unsure)
    chosen = unsure + [rest[i * len(rest) // wanted] for i in range(min(wanted, len(rest)))]
    others = _others(UNSURE - len(unsure))
    for index in range(len(unsure), len(chosen), 2):
        words = others[chosen[index]["lang"] == "en"]
        if words:
            chosen[index] = chosen[index] | words.pop()
    order = {one["id"]: index for index, one in enumerate(whole)}
    return sorted(chosen, key=lambda one: order[one["id"]])


def _others(number: int) -> dict[bool, list[Sample]]:
    """Messages of the other set that the rules are unsure of, with their labels, by whether they are English."""
    found = [one for one in _lines(OTHERS) if _unsure(one["text"])][:number]
    labels = ("intent", "priority", "next_action", "lang")
    told = [{"message": one["text"]} | {name: one[name] for name in labels} for one in found]
    return {english: [one for one in told if (one["lang"] == "en") is english] for english in (True, False)}


def _lines(path: Path) -> list[Sample]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _unsure(message: str) -> bool:
    return verdict.judge(message).confidence < SURE_FROM


def calls() -> list[Call]:
    """What is posted, in the order of the set."""
    found: list[Call] = []
    comments: list[Sample] = []
    again: list[Call] = []
    for sample in samples():
        if sample["channel"] == "facebook":
            comments.append(sample)
            if len(comments) == COMMENTS_A_BODY:
                found.append(_facebook(comments))
                comments = []
        elif sample["channel"] in FORMS and sample["message"].strip():
            found.append(_form(sample))
            if len(again) < AGAIN and sample["email"]:
                again.append(_form(sample, repeated=True))
        else:
            found.append(_v1(sample))
    if comments:
        found.append(_facebook(comments))
    return found + again


def post(url: str, key: str, on_posted: Callable[[int], None]) -> None:
    """All of them, several at a time. RuntimeError names the first that was refused for another reason than being
    there already."""
    with requests.Session() as session, ThreadPoolExecutor(8) as pool:
        session.trust_env = False
        session.headers["X-API-Key"] = key
        session.mount(url, requests.adapters.HTTPAdapter(pool_maxsize=8))
        for brought in pool.map(lambda call: _send(session, url, call), calls()):
            on_posted(brought)


def _send(session: requests.Session, url: str, call: Call) -> int:
    path, body, headers, brings = call
    for wait in (0.2, 0.5, 1.0, 2.0, None):
        answer = session.post(url + path, json=body, headers=headers, timeout=20)
        if answer.status_code in (200, 201, 409):
            return brings
        if answer.status_code != 503 or wait is None:
            break
        time.sleep(wait)
    raise RuntimeError(f"POST {path} was answered {answer.status_code}: {answer.text[:300]}")


def _known(sample: Sample, *names: str) -> Iterator[tuple[str, Any]]:
    """What is there; an unusable e-mail is what a form would not have let through."""
    for name in names:
        value = sample[name]
        if name == "email" and value and not _usable(value):
            continue
        if value not in (None, ""):
            yield name, value


def _usable(email: str) -> bool:
    try:
        _EMAIL.validate_python(email)
    except ValidationError:
        return False
    return True


def _key(sample: Sample, suffix: str = "") -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid5(_NAMESPACE, sample["id"] + suffix))}


def _form(sample: Sample, *, repeated: bool = False) -> Call:
    body = {"note": sample["message"], "source": sample["channel"], **dict(_known(sample, "name", "email", "phone"))}
    return "/leads/", body, _key(sample, " again" if repeated else ""), 0 if repeated else 1


def _v1(sample: Sample) -> Call:
    fields = dict(_known(sample, "name", "email", "phone", "company", "job_title", "country", "budget", "message"))
    body = {"lead_id": f"demo-{sample['id']}", "source": sample["channel"], **fields}
    return "/api/v1/leads", body, _key(sample), 1


def _facebook(comments: list[Sample]) -> Call:
    entries = [
        {
            "id": PAGE_ID,
            "time": int(time.time()),
            "changes": [
                {
                    "field": "feed",
                    "value": {
                        "item": "comment",
                        "verb": "add",
                        "comment_id": f"{PAGE_ID}_{sample['id']}",
                        "post_id": f"{PAGE_ID}_1",
                        "from": {"id": f"demo-author-{sample['id']}", "name": sample["name"] or "Facebook user"},
                        "message": sample["message"],
                    },
                }
            ],
        }
        for sample in comments
    ]
    return "/webhooks/facebook", {"object": "page", "entry": entries}, {}, len(comments)
