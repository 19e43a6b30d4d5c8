"""Settings: any PostgreSQL form, all or none of DB_*, and one clear line that names the bad variable."""

import re
from pathlib import Path

import pytest

from webapp.config import ConfigError, Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent

PARTS = {"DB_HOST": "db", "DB_PORT": "5433", "DB_NAME": "leads", "DB_USER": "ops", "DB_PASSWORD": "p@ss/word"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("postgres://u:p@h:5432/d", "postgresql+psycopg://u:p@h:5432/d"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+psycopg://u:p@h/d?sslmode=require"),
        ("postgresql+asyncpg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+asyncpg://u@h/d?ssl=require", "postgresql+psycopg://u@h/d?sslmode=require"),
        ("postgresql+asyncpg://u@h/d?a=ssl&ssl=true&b=%2F", "postgresql+psycopg://u@h/d?a=ssl&sslmode=require&b=%2F"),
        ("postgresql+asyncpg://u@h/d?ssl=False", "postgresql+psycopg://u@h/d?sslmode=disable"),
        ("postgresql+asyncpg://u@h/d?ssl=prefer", "postgresql+psycopg://u@h/d?sslmode=prefer"),
        ("postgresql+asyncpg://u@h/d?ssl=verify-full", "postgresql+psycopg://u@h/d?sslmode=verify-full"),
        ("postgresql+psycopg2://u@/d?host=/run/pg", "postgresql+psycopg://u@/d?host=/run/pg"),
    ],
)
def test_any_form_of_database_url(given: str, meant: str) -> None:
    assert load_settings({"DATABASE_URL": given}).database_url.get_secret_value() == meant


def test_parts_make_a_url() -> None:
    url = load_settings(PARTS).database_url.get_secret_value()
    assert url == "postgresql+psycopg://ops:p%40ss%2Fword@db:5433/leads"


def test_parts_with_a_socket_folder() -> None:
    url = load_settings(PARTS | {"DB_HOST": "/run/pg"}).database_url.get_secret_value()
    assert url == "postgresql+psycopg://ops:p%40ss%2Fword@/leads?host=%2Frun%2Fpg&port=5433"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"DATABASE_URL": "mysql://u@h/d"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql://"}, "DATABASE_URL"),
        ({"DATABASE_URL": "postgresql+asyncpg://u@h/d?ssl=maybe"}, "DATABASE_URL"),
        ({"DB_HOST": "db"}, "DB_PASSWORD"),
        (PARTS | {"DATABASE_URL": "postgresql://u@h/d"}, "DATABASE_URL"),
        ({"REDIS_URL": "http://h"}, "REDIS_URL"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"FIELD_ENCRYPTION_KEYS": "not a key"}, "FIELD_ENCRYPTION_KEYS"),
        ({"ADMIN_PASSWORD": "short"}, "ADMIN_PASSWORD"),
        ({"PORT": "http"}, "PORT"),
        ({"PORT": "0"}, "PORT"),
        ({"PORT": "70000"}, "PORT"),
        ({"WEB_WORKERS": "-1"}, "WEB_WORKERS"),
        ({"IMPORT_HELPERS": "-1"}, "IMPORT_HELPERS"),
        ({"IMPORT_HELPERS": "many"}, "IMPORT_HELPERS"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"UNDO_WINDOW_SECONDS": "soon"}, "UNDO_WINDOW_SECONDS"),
        ({"DEFAULT_REGION": "Vietnam"}, "DEFAULT_REGION"),
        ({"DEFAULT_REGION": "UK"}, "DEFAULT_REGION"),
        ({"TWENTY_REST_URL": "http://crm/rest"}, "TWENTY_REST_TOKEN"),
        ({"TWENTY_REST_URL": "crm", "TWENTY_REST_TOKEN": "t"}, "TWENTY_REST_URL"),
        ({"SLACK_CHANNEL": "C0123ABCD"}, "SLACK_BOT_TOKEN"),
        ({"SLACK_CHANNEL": "#leads", "SLACK_BOT_TOKEN": "t"}, "SLACK_CHANNEL"),
        ({"WEBHOOK_URL": "ftp://x"}, "WEBHOOK_URL"),
        ({"OUTBOUND_ALLOW_CIDRS": "everywhere"}, "OUTBOUND_ALLOW_CIDRS"),
        ({"DB_PREPARED_STATEMENTS": "maybe"}, "DB_PREPARED_STATEMENTS"),
        ({"MAX_RETRIES": "0"}, "MAX_RETRIES"),
        ({"CRM_PULL_SECONDS": "-1"}, "CRM_PULL_SECONDS"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_names_it(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(environ)
    said = str(refused.value)
    assert named in said and "\n" not in said


def test_secrets_are_not_repeated_in_the_line() -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings({"ADMIN_PASSWORD": "hunter2"})
    assert "hunter2" not in str(refused.value)


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load_settings({"PORT": "", "TWENTY_REST_URL": ""}).port == 8000


def test_a_region_in_small_letters() -> None:
    assert load_settings({"DEFAULT_REGION": "vn"}).default_region == "VN"


def test_only_what_is_appended_to_loses_its_last_slash() -> None:
    given = {
        "WEBHOOK_URL": "https://n8n.example/webhook/lead/",
        "TWENTY_REST_URL": "https://crm.example/rest/",
        "TWENTY_REST_TOKEN": "t",
        "PUBLIC_URL": "https://leads.example/",
    }
    found = load_settings(given)
    assert found.webhook_url == "https://n8n.example/webhook/lead/"
    assert found.twenty_rest_url == "https://crm.example/rest"
    assert found.public_url == "https://leads.example"


#: Read by validators and properties of Settings itself.
READ_WITHIN = {"db_host", "db_port", "db_name", "db_user", "db_password", "db_pool_size", "imports_dir"}


def test_every_setting_is_read_by_something() -> None:
    sources = [path for folder in ("webapp", "jobs", "script/embedded") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path != ROOT / "webapp/config.py")
    unread = {name for name in Settings.model_fields if not re.search(rf"\.{name}\b", text)}
    assert unread == READ_WITHIN


def test_the_follow_up_time_limit_is_clamped() -> None:
    assert load_settings({"N8N_WEBHOOK_TIMEOUT_SECONDS": "60"}).n8n_webhook_timeout_seconds == 10
    assert load_settings({"N8N_WEBHOOK_TIMEOUT_SECONDS": "0.1"}).n8n_webhook_timeout_seconds == 3


def test_the_app_does_not_start_without_its_services() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        load_settings({}).require_services()
