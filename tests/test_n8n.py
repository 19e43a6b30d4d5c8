"""The shipped n8n workflow can be imported, repeats what may be repeated, and answers every caller without leaking."""

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent / "n8n" / "lead-qualification-workflow.json"
#: The versions that n8n 1.123 and 2.8 both know, the lower where there are several.
VERSIONS = {
    "webhook": 2,
    "set": 3.4,
    "httpRequest": 4.2,
    "if": 2.2,
    "respondToWebhook": 1.1,
    "slack": 2.2,
    "googleSheets": 4.5,
    "stickyNote": 1,
}
Node = dict[str, Any]


@pytest.fixture(scope="module")
def flow() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def nodes(flow: dict[str, Any]) -> dict[str, Node]:
    return {node["name"]: node for node in flow["nodes"]}


def kind(node: Node) -> str:
    return str(node["type"]).removeprefix("n8n-nodes-base.")


def only(nodes: dict[str, Node], wanted: str) -> Node:
    (found,) = [node for node in nodes.values() if kind(node) == wanted]
    return found


def after(flow: dict[str, Any], name: str, output: int = 0) -> list[str]:
    outputs = flow["connections"].get(name, {}).get("main", [])
    return [target["node"] for target in outputs[output]] if output < len(outputs) else []


def expressions(value: Any) -> Iterator[str]:
    """Every string of a node that n8n evaluates."""
    if isinstance(value, str):
        if value.startswith("="):
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item)


def test_it_can_be_imported_again_and_again(flow: dict[str, Any]) -> None:
    assert 0 < len(flow["id"]) <= 36 and flow["name"] and flow["active"] is False
    assert flow["settings"]["executionOrder"] == "v1" and flow["pinData"] == {}
    ids = [node["id"] for node in flow["nodes"]]
    names = [node["name"] for node in flow["nodes"]]
    assert len(set(ids)) == len(ids) and len(set(names)) == len(names)
    for node in flow["nodes"]:
        assert node["type"].startswith("n8n-nodes-base."), "a community node would have to be installed first"
        assert node["typeVersion"] == VERSIONS[kind(node)], node["name"]
        assert len(node["position"]) == 2


def test_connections_lead_from_node_to_node(flow: dict[str, Any], nodes: dict[str, Node]) -> None:
    reached = {only(nodes, "webhook")["name"]}
    for source, outputs in flow["connections"].items():
        assert source in nodes
        for output in outputs["main"]:
            for target in output:
                assert target["node"] in nodes and (target["type"], target["index"]) == ("main", 0)
                reached.add(target["node"])
    assert {name for name, node in nodes.items() if kind(node) != "stickyNote"} == reached


def test_expressions_name_nodes_that_exist(flow: dict[str, Any], nodes: dict[str, Node]) -> None:
    named = [name for text in expressions(flow) for name in re.findall(r"\$\('([^']+)'\)", text)]
    assert named and set(named) <= set(nodes)
    settings = {one["name"] for one in nodes["Settings"]["parameters"]["assignments"]["assignments"]}
    used = {
        name for text in expressions(flow) for name in re.findall(r"\$\('Settings'\)\.first\(\)\.json\.(\w+)", text)
    }
    assert used <= settings, "a setting is used that does not exist"


def test_the_webhook_waits_for_an_answer_and_knows_its_caller(nodes: dict[str, Node]) -> None:
    webhook = only(nodes, "webhook")
    assert str(uuid.UUID(webhook["webhookId"])) == webhook["webhookId"]
    parameters = webhook["parameters"]
    assert (parameters["httpMethod"], parameters["responseMode"]) == ("POST", "responseNode")
    assert parameters["authentication"] == "headerAuth" and "httpHeaderAuth" in webhook["credentials"]


def test_the_lead_is_qualified_by_the_console(nodes: dict[str, Node]) -> None:
    call = only(nodes, "httpRequest")
    assert (call["retryOnFail"], call["maxTries"], call["waitBetweenTries"]) == (True, 3, 2000)
    assert call["onError"] == "continueErrorOutput"
    parameters = call["parameters"]
    assert parameters["method"] == "POST" and "'/enrich-lead'" in parameters["url"]
    assert parameters["genericAuthType"] == "httpHeaderAuth" and "httpHeaderAuth" in call["credentials"]
    assert parameters["sendBody"] is True and parameters["jsonBody"].startswith("={{ JSON.stringify(")
    sent = {header["name"]: header["value"] for header in parameters["headerParameters"]["parameters"]}
    # All three tries are one execution, and the key does not change between them.
    assert sent["Idempotency-Key"] == "={{ $json.external_id }}"
    assert not re.search(r"\$now|random|Date", sent["Idempotency-Key"])
    assert "neverError" not in json.dumps(parameters), "errors are to take the error output"


def test_both_branches_and_errors_are_answered_once(flow: dict[str, Any], nodes: dict[str, Node]) -> None:
    call, choice = only(nodes, "httpRequest")["name"], only(nodes, "if")["name"]
    assert after(flow, call, 0) == [choice]
    condition = nodes[choice]["parameters"]["conditions"]["conditions"][0]
    assert condition["leftValue"] == "={{ $json.qualified }}"
    assert condition["operator"] == {"type": "boolean", "operation": "true", "singleValue": True}

    def way(name: str) -> list[str]:
        followed = [name]
        while following := after(flow, followed[-1]):
            assert len(following) == 1, "two nodes would answer"
            followed += following
        return followed

    (hot,), (cold,), (error,) = after(flow, choice, 0), after(flow, choice, 1), after(flow, call, 1)
    kinds = [[kind(nodes[name]) for name in way(start)] for start in (hot, cold, error)]
    assert kinds == [
        ["slack", "googleSheets", "respondToWebhook"],
        ["googleSheets", "respondToWebhook"],
        ["respondToWebhook"],
    ]
    for name in (*way(hot)[:-1], *way(cold)[:-1]):
        assert nodes[name]["onError"] == "continueRegularOutput", f"a failure of {name} would leave the caller waiting"
    for name in (way(hot)[-1], way(cold)[-1]):
        assert nodes[name]["parameters"]["respondWith"] == "json"
        assert nodes[name]["parameters"]["responseBody"] == "={{ JSON.stringify($('Qualify the lead').first().json) }}"


def test_a_repeat_writes_the_row_again_and_tells_slack_once(nodes: dict[str, Node]) -> None:
    sheets = [node for node in nodes.values() if kind(node) == "googleSheets"]
    assert len(sheets) == 2
    for sheet in sheets:
        parameters = sheet["parameters"]
        assert parameters["operation"] == "appendOrUpdate"
        assert parameters["columns"]["matchingColumns"] == ["external_id"]
        assert set(parameters["columns"]["value"]) == {column["id"] for column in parameters["columns"]["schema"]}
        assert parameters["options"]["cellFormat"] == "RAW", "a lead's text could become a formula"
    slack = only(nodes, "slack")
    assert "retryOnFail" not in slack, "Slack knows no repeat: a second try may be a second message"
    assert slack["parameters"]["otherOptions"]["includeLinkToWorkflow"] is False


def test_no_secret_and_no_environment_in_it(flow: dict[str, Any]) -> None:
    text = PATH.read_text(encoding="utf-8")
    assert not re.search(r"\$env|process\.env|require\(", text), "n8n 2 denies these"
    assert not re.search(r"lo_[\w-]{20,}|xox[abp]-|Bearer |ya29\.|-----BEGIN", text)
    for node in flow["nodes"]:
        for reference in node.get("credentials", {}).values():
            assert set(reference) == {"id", "name"}
        if kind(node) in ("slack", "googleSheets", "httpRequest"):
            assert node["credentials"]


# What the error branch says, evaluated as n8n would: the expression's JavaScript with $json in scope.

STACK = "NodeApiError: refused\n    at /usr/lib/node_modules/n8n/dist/HttpRequestV3.node.js:123:45"
ENVELOPE = json.dumps({"error": {"code": "invalid_param", "message": "the request is not valid", "request_id": "r"}})
ERRORS: list[tuple[Any, int, str]] = [
    # As n8n 2.8.4 has it: the status and the answer's body as a JSON string.
    (
        {"message": f"422 - {json.dumps(ENVELOPE)}", "stack": STACK, "status": 422},
        422,
        "refused: the request is not valid",
    ),
    ({"message": "422 - the request is not valid", "stack": STACK, "status": 422, "name": "x"}, 422, "not valid"),
    ({"message": "401 - no", "stack": STACK, "status": "401"}, 401, "no"),
    ({"message": f"409 - busy\n{STACK}", "stack": STACK, "status": 409}, 409, "busy"),
    ({"message": f"internal at 10.0.0.7 {STACK}", "stack": STACK, "status": 503}, 503, "Send it again"),
    ({"message": "connect ECONNREFUSED 10.0.0.7:8000", "stack": STACK, "code": "ECONNREFUSED"}, 502, "Send it again"),
    ({"message": "x", "stack": STACK, "status": 200}, 502, "Send it again"),
    ({}, 502, "Send it again"),
]


@pytest.mark.parametrize(("error", "status", "words"), ERRORS)
def test_errors_are_answered_with_the_status_and_a_clean_message(
    nodes: dict[str, Node], error: Any, status: int, words: str
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node to evaluate the expression")
    parameters = nodes["Answer: error"]["parameters"]
    body, code = (
        parameters[name].removeprefix("={{").removesuffix("}}")
        for name, parameters in (("responseBody", parameters), ("responseCode", parameters["options"]))
    )
    script = f"const $json = {json.dumps({'error': error})}; console.log(JSON.stringify([{body}, {code}]))"
    answered, answered_code = json.loads(
        subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=30).stdout
    )
    said = json.loads(answered)
    assert answered_code == status and said["error"]["status"] == status and set(said["error"]) == {"status", "message"}
    assert words in said["error"]["message"] and not re.search(r'["{\\\\]', said["error"]["message"])
    assert not re.search(r"node_modules|\n| at /|10\.0\.0\.7|stack", answered)


def test_the_error_itself_is_never_echoed(nodes: dict[str, Node]) -> None:
    for text in expressions(nodes["Answer: error"]):
        used = set(re.findall(r"\$json\.error(?:\.(\w+))?", text))
        assert used and used <= {"status", "message"}, f"{used} of the error would get out"
    for node in nodes.values():
        if kind(node) == "respondToWebhook" and node["name"] != "Answer: error":
            assert not any("error" in text for text in expressions(node))
