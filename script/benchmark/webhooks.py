"""``/webhooks/facebook`` as Meta posts to it: signed, fifty comments in one body, one body after another."""

import hashlib
import hmac
import http.client
import itertools
import json
import random
import statistics
import time
import uuid
from typing import Any

from benchmark.stack import Stack

REQUESTS = 200
COMMENTS = 50
WARM_UP = 20
SECRET = "benchmark app secret"
PAGE = "104000000000001"

#: What people write under posts, as short and as mixed as they do.
WORDS = (
    "Giá bao nhiêu vậy shop?", "Cho mình xin báo giá gói Enterprise với ạ", "ib mình nhé", "Còn hàng không shop ơi",
    "Ship về Đà Nẵng mất mấy ngày?", "What is the price for 50 seats?", "Can I get a demo next week?", "Great page!",
    "Is there a discount for schools?", "My order has not arrived, this is the third time I ask", "🔥🔥🔥", "cảm ơn shop",
    "Shop có tuyển dụng không ạ?", "Call me at +84 912 345 678 please", "Does it work with Shopify?", "so cute 😍",
)  # fmt: skip

_numbers = itertools.count(1)


def body(run: str, words: random.Random) -> bytes:
    """One body of fresh comments by people who have not written before."""
    changes = []
    for _ in range(COMMENTS):
        number = next(_numbers)
        value = {
            "from": {"id": f"{run}{number}", "name": f"Nguyễn Văn {number}"}, "item": "comment", "verb": "add",
            "comment_id": f"{PAGE}_{run}{number}", "post_id": f"{PAGE}_7", "parent_id": f"{PAGE}_7",
            "created_time": 1520544814, "message": words.choice(WORDS),
            "post": {"status_type": "added_photos", "is_published": True, "id": f"{PAGE}_7"},
        }  # fmt: skip
        changes.append({"field": "feed", "value": value})
    return json.dumps({"object": "page", "entry": [{"id": PAGE, "time": 1520544814, "changes": changes}]}).encode()


def measure(stack: Stack) -> dict[str, Any]:
    """Latencies in milliseconds, with the workers stopped and with them running."""
    stack.env["META_APP_SECRET"] = SECRET
    stack.flask("social-pages", "add", "facebook", PAGE)
    with stack.web():
        alone = _post_all(stack)
        with stack.workers():
            return {"comments": COMMENTS, "requests": REQUESTS, "web alone": alone, "with workers": _post_all(stack)}


def _post_all(stack: Stack) -> dict[str, float]:
    words, run = random.Random(5), str(uuid.uuid4().int)[:9]
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    times = [_post(connection, body(run, words)) for _ in range(WARM_UP + REQUESTS)][WARM_UP:]
    connection.close()
    return {
        "p50_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 1),
        "max_ms": round(max(times), 1),
    }


def _post(connection: http.client.HTTPConnection, sent: bytes) -> float:
    """Milliseconds. RuntimeError unless every comment became a lead."""
    signature = hmac.new(SECRET.encode(), sent, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
    began = time.perf_counter()
    connection.request("POST", "/webhooks/facebook", sent, headers)
    answer = connection.getresponse()
    text = answer.read()
    took = time.perf_counter() - began
    if answer.status != 200 or json.loads(text)["created"] != COMMENTS:
        raise RuntimeError(f"the webhook answered {answer.status}: {text[:200]!r}")
    return took * 1_000
