"""Environment → frozen :class:`Settings`. The process refuses to start on a bad value and names it.

The README's configuration table is generated from this class (``flask config-table``) and tested to be current, so
every variable carries its description here and nowhere else.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from webapp.security.fields import FieldCipher

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
#: Requests of one web process that may wait for a model at a time; each has a thread of its own for that.
MOST_WAITING = 4


class ConfigError(ValueError):
    """A setting is missing or nonsense. ``str()`` is one line that names the variable and what would do."""


def _env(name: str) -> AliasChoices:
    return AliasChoices(name)


def setting(default: Any, env: str, text: str, **limits: Any) -> Any:
    """A field read from ``env``; ``text`` is its row in the README table."""
    return Field(default, validation_alias=_env(env), description=text, **limits)


class Settings(BaseSettings):
    """Everything the processes read from their environment, validated once at start."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Where things are
    database_url: SecretStr = setting(
        SecretStr(""),
        "DATABASE_URL",
        "PostgreSQL 15 or newer, any form (`postgres://`, `postgresql+asyncpg://` …). Unset: the embedded server of "
        "`script/server`.",
    )
    db_host: str | None = setting(None, "DB_HOST", "With the other four `DB_*`: instead of `DATABASE_URL`.")
    db_port: int | None = setting(None, "DB_PORT", "See `DB_HOST`.", ge=1, le=65535)
    db_name: str | None = setting(None, "DB_NAME", "See `DB_HOST`.")
    db_user: str | None = setting(None, "DB_USER", "See `DB_HOST`.")
    db_password: SecretStr | None = setting(None, "DB_PASSWORD", "See `DB_HOST`.")
    db_prepared_statements: bool = setting(
        True, "DB_PREPARED_STATEMENTS", "`off` behind PgBouncer in transaction mode."
    )
    db_pool_size: int = setting(
        0,
        "DB_POOL_SIZE",
        "Connections per process, besides `WEB_THREADS` more for intake in a web process. `0`: `WEB_THREADS` plus two.",
        ge=0,
        le=200,
    )
    redis_url: SecretStr = setting(
        SecretStr(""), "REDIS_URL", "Redis or Valkey 6.2 or newer. Unset: the embedded server of `script/server`."
    )

    # Secrets
    secret_key: SecretStr = setting(
        SecretStr(""),
        "SECRET_KEY",
        "Signs sessions; at least 32 characters. Made by `script/server` for the embedded default, required with "
        "`DATABASE_URL`.",
    )
    field_encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = setting(
        (),
        "FIELD_ENCRYPTION_KEYS",
        "Comma-separated Fernet keys, newest first; encrypt credentials and sensitive attributes. Rotate by putting a "
        "new key in front. Required with `DATABASE_URL`.",
    )
    admin_email: str = setting("admin@localhost", "ADMIN_EMAIL", "The admin made at the first start.")
    admin_password: SecretStr | None = setting(
        None, "ADMIN_PASSWORD", "Their password; at least 10 characters. Unset: a random one, printed once."
    )

    # Processes
    host: str = setting("127.0.0.1", "HOST", "Address the web server listens on.")
    port: int = setting(8000, "PORT", "Port the web server listens on.", ge=1, le=65535)
    data_dir: str = setting("var", "LEADOPS_DATA_DIR", "Where the embedded servers and generated secrets live.")
    web_workers: int = setting(2, "WEB_WORKERS", "Web processes.", ge=1, le=64)
    web_threads: int = setting(
        6,
        "WEB_THREADS",
        "Requests that each web process works on at once. It has four threads more, for requests that wait for a model.",
        ge=1,
        le=128,
    )
    run_workers: int = setting(1, "RUN_WORKERS", "Worker processes for runs.", ge=1, le=64)
    delivery_workers: int = setting(1, "DELIVERY_WORKERS", "Worker processes for deliveries.", ge=1, le=64)
    import_workers: int = setting(1, "IMPORT_WORKERS", "Worker processes for imports.", ge=1, le=64)
    import_helpers: int = setting(
        1,
        "IMPORT_HELPERS",
        "Processes in which an import worker prepares the rows of larger files while it writes those before; with `0` it "
        "prepares them itself.",
        ge=0,
        le=16,
    )
    fetch_workers: int = setting(1, "FETCH_WORKERS", "Worker processes for what is fetched from outside.", ge=1, le=64)
    log_level: LogLevel = setting("INFO", "LOG_LEVEL", "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.")
    public_url: str = setting(
        "",
        "PUBLIC_URL",
        "How people reach the console. With `https://…` cookies are secure and browsers are told to stay on TLS.",
    )
    trusted_proxies: int = setting(
        0, "TRUSTED_PROXIES", "Reverse proxies in front whose `X-Forwarded-*` headers are believed.", ge=0, le=5
    )

    # Intake
    meta_app_secret: SecretStr | None = setting(
        None, "META_APP_SECRET", "App secret that signs Meta's webhooks for the workspace `default`."
    )
    meta_verify_token: SecretStr | None = setting(
        None, "META_VERIFY_TOKEN", "Verify token of the webhook subscription."
    )
    meta_access_token: SecretStr | None = setting(
        None,
        "META_ACCESS_TOKEN",
        "Page access token (`leads_retrieval`) that fetches Lead Ads forms for the workspace `default` where a page has "
        "none of its own.",
    )
    meta_graph_url: str = setting("https://graph.facebook.com", "META_GRAPH_URL", "Meta's Graph API.")
    meta_graph_version: str = setting(
        "v24.0", "META_GRAPH_VERSION", "Version of the Graph API, such as `v24.0`.", pattern=r"^v[1-9][0-9]?\.[0-9]$"
    )
    rate_limit_max: int = setting(10_000, "RATE_LIMIT_MAX", "Requests per API key and window.", ge=1, le=1_000_000_000)
    rate_limit_window: int = setting(3_600, "RATE_LIMIT_WINDOW", "The window, in seconds.", ge=1, le=86_400)
    rate_limit_burst: int = setting(
        0,
        "RATE_LIMIT_BURST",
        "Requests per API key and second, in each web process; `0`: no such limit.",
        ge=0,
        le=1_000_000,
    )
    rate_limit_per_day: int = setting(
        0, "RATE_LIMIT_PER_DAY", "Requests per API key and day (UTC); `0`: no such limit.", ge=0, le=1_000_000_000
    )
    max_batch_size: int = setting(
        1_000,
        "MAX_BATCH_SIZE",
        "Most leads of one bulk action, and of one batch that is answered at once.",
        ge=1,
        le=10_000,
    )
    imports_dir: str = setting(
        "",
        "IMPORTS_DIR",
        "Where files of leads wait for their import; web and import workers must share it. "
        "Unset: `imports` in `LEADOPS_DATA_DIR`.",
    )
    max_import_bytes: int = setting(
        256 << 20, "MAX_IMPORT_BYTES", "Largest file of leads, in bytes.", ge=1_024, le=4 << 30
    )
    import_keep_days: int = setting(
        30, "IMPORT_KEEP_DAYS", "How long an import's record, its file and its errors are kept.", ge=2, le=3_650
    )
    idempotency_days: int = setting(
        30, "IDEMPOTENCY_DAYS", "How long an `Idempotency-Key` is remembered.", ge=1, le=365
    )
    duplicate_days: int = setting(
        30, "DUPLICATE_DAYS", "Same person and same message within so many days: a touch, not a new lead.", ge=1, le=365
    )
    default_region: str = setting(
        "US", "DEFAULT_REGION", "Country (ISO 3166, two letters) for phone numbers written without a country code."
    )

    # Judging
    classify_mode: Literal["rules", "rules_then_llm", "llm"] = setting(
        "rules_then_llm",
        "CLASSIFY_MODE",
        "`rules`; `rules_then_llm`: a language model is asked where the rules are not sure (rules alone while none is "
        "configured); `llm`: it is asked every time, and `/enrich-lead` answers 502 without it.",
    )
    lead_classify_use_llm: bool = setting(
        True, "LEAD_CLASSIFY_USE_LLM", "`off`: no model is asked, whatever `CLASSIFY_MODE` says."
    )
    lead_classify_llm_timeout_seconds: float = setting(
        10.0, "LEAD_CLASSIFY_LLM_TIMEOUT_SECONDS", "Time limit of asking the model about one lead, clamped to 3–60 s."
    )
    openai_api_key: SecretStr | None = setting(
        None,
        "OPENAI_API_KEY",
        "Key of an OpenAI-compatible service. Unset, and no `OPENAI_BASE_URL`: no model is asked.",
    )
    openai_base_url: str | None = setting(
        None, "OPENAI_BASE_URL", "Its address up to `/v1`, such as Ollama's `http://localhost:11434/v1`. Unset: OpenAI."
    )
    openai_model: str = setting("gpt-4o-mini", "OPENAI_MODEL", "The model's name there.")
    llm_prices: Annotated[Mapping[str, tuple[float, float]], NoDecode] = setting(
        {"gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.00), "gpt-4.1-mini": (0.40, 1.60), "gpt-4.1": (2.00, 8.00)},
        "LLM_PRICES",
        "Prices of models in US dollars per million tokens, in and out, such as `gpt-4o-mini=0.15/0.60,my-model=0/0`; "
        "added to the ones known. Without a price a day's budget in dollars cannot be kept.",
    )
    processing_timeout: float = setting(
        25.0,
        "PROCESSING_TIMEOUT",
        "How long a request to `/enrich-lead` waits for the model, in seconds.",
        ge=1,
        le=300,
    )

    # Features; each workspace can choose otherwise
    enable_enrichment: bool = setting(
        True, "ENABLE_ENRICHMENT", "Runs look up what an address, a number and a company tell. `off`: stage skipped."
    )
    enable_ml_scoring: bool = setting(
        True, "ENABLE_ML_SCORING", "Scores use what was learned from outcomes. `off`: the plain rule score."
    )
    enable_auto_routing: bool = setting(
        True, "ENABLE_AUTO_ROUTING", "Runs give leads to members. `off`: they wait in manual review."
    )
    enable_webhooks: bool = setting(
        True,
        "ENABLE_WEBHOOKS",
        "Outgoing webhooks and the n8n follow-up. `off`: none is planned, waiting ones are held.",
    )
    enable_llm_copywriting: bool = setting(
        False,
        "ENABLE_LLM_COPYWRITING",
        "The model writes follow-up tasks, checked against the lead's own fields. `off`: the static template.",
    )

    # Enrichment
    enrichment_timeout: float = setting(
        8.0,
        "ENRICHMENT_TIMEOUT",
        "How long a run waits for facts from outside (DNS, home page, data services, CRM) before it goes on with those "
        "it has, in seconds.",
        ge=0.5,
        le=60,
    )

    # Review
    undo_window_seconds: int = setting(
        10, "UNDO_WINDOW_SECONDS", "How long a decision can be undone before its deliveries go out.", ge=0, le=3_600
    )

    # Outside
    twenty_rest_url: str | None = setting(
        None, "TWENTY_REST_URL", "Twenty's REST base (what `/people` is appended to); a destination of `default`."
    )
    twenty_rest_token: SecretStr | None = setting(None, "TWENTY_REST_TOKEN", "API key for `TWENTY_REST_URL`.")
    twenty_task_target_field: Literal["targetPersonId", "personId"] = setting(
        "targetPersonId",
        "TWENTY_TASK_TARGET_FIELD",
        "Name of a task target's person field: `targetPersonId`, or `personId` on servers before about 1.17.",
    )
    webhook_url: str | None = setting(
        None, "WEBHOOK_URL", "Social leads of high priority, in any workspace, are posted here (n8n follow-up)."
    )
    n8n_webhook_timeout_seconds: float = setting(
        5.0, "N8N_WEBHOOK_TIMEOUT_SECONDS", "Time limit of one such post, clamped to 3–10 s."
    )
    slack_bot_token: SecretStr | None = setting(
        None, "SLACK_BOT_TOKEN", "Slack bot that tells `SLACK_CHANNEL` of leads; a destination of `default`."
    )
    slack_channel: str | None = setting(
        None,
        "SLACK_CHANNEL",
        "Id of the channel, such as `C0123ABCD`; the bot is a member of it.",
        pattern=r"^[CGD][A-Z0-9]{5,20}$",
    )
    slack_api_url: str = setting(
        "https://slack.com/api", "SLACK_API_URL", "Where Slack's Web API is; another one only for tests."
    )
    sheets_api_url: str = setting(
        "https://sheets.googleapis.com",
        "SHEETS_API_URL",
        "Where the Google Sheets API is; another one only for tests.",
    )
    delivery_timeout: float = setting(
        15.0, "DELIVERY_TIMEOUT", "Time limit of one delivery call, in seconds.", ge=1, le=120
    )
    sync_wait_seconds: float = setting(
        10.0,
        "SYNC_WAIT_SECONDS",
        "How long `/sync-crm` and `/tasks/auto-assign` wait for the CRM before they answer 202, in seconds.",
        ge=0,
        le=60,
    )
    crm_pull_seconds: float = setting(
        300.0,
        "CRM_PULL_SECONDS",
        "How often what became of leads is read back from CRMs, in seconds from the end of one pull to the next; 0: never.",
        ge=0,
        le=86_400,
    )
    max_retries: int = setting(
        8, "MAX_RETRIES", "Attempts of a delivery, or of a fetch, before it is given up.", ge=1, le=50
    )
    retry_delay: float = setting(
        5.0,
        "RETRY_DELAY",
        "First back-off of a delivery or a fetch, in seconds; doubles each time, with full jitter.",
        ge=0.05,
        le=3_600,
    )
    outbound_allow_cidrs: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "OUTBOUND_ALLOW_CIDRS",
        "Comma-separated private ranges that URLs entered in the browser, and the pages they lead to, may point to "
        "(such as `127.0.0.0/8`). Default: public addresses only.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load_settings() hands the environment in, so that a test's mapping and os.environ take the same way.
        return (init_settings,)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("field_encryption_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        keys = _split(value)
        FieldCipher([str(key) for key in keys]) if keys else None
        return keys

    @field_validator("outbound_allow_cidrs", mode="before")
    @classmethod
    def _split_cidrs(cls, value: Any) -> Any:
        return tuple(str(ipaddress.ip_network(part)) for part in _split(value))

    @field_validator("llm_prices", mode="before")
    @classmethod
    def _read_prices(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = dict(cls.model_fields["llm_prices"].default)
        for part in _split(value):
            match = re.fullmatch(r"(\S+?)\s*=\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)", part)
            if match is None:
                raise ValueError("must look like gpt-4o-mini=0.15/0.60,other-model=1/2 (US dollars per million tokens)")
            found[match[1]] = (float(match[2]), float(match[3]))
        return found

    @field_validator("lead_classify_llm_timeout_seconds")
    @classmethod
    def _clamp_llm(cls, value: float) -> float:
        return min(60.0, max(3.0, value))

    @field_validator("twenty_rest_url", "webhook_url", "meta_graph_url", "openai_base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        return value

    @field_validator("twenty_rest_url", "meta_graph_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        return value and value.rstrip("/")

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str) -> str:
        return (cls._http_url(value) or "").rstrip("/") if value else ""

    @field_validator("default_region", mode="before")
    @classmethod
    def _region(cls, value: Any) -> Any:
        from phonenumbers import SUPPORTED_REGIONS  # all countries' data: not loaded for the default

        if not isinstance(value, str) or value.upper() not in SUPPORTED_REGIONS:
            raise ValueError("must be a country's two-letter code, such as US or GB")
        return value.upper()

    @field_validator("n8n_webhook_timeout_seconds")
    @classmethod
    def _clamp(cls, value: float) -> float:
        return min(10.0, max(3.0, value))

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @field_validator("admin_password")
    @classmethod
    def _password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 10:
            raise ValueError("must have at least 10 characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @model_validator(mode="before")
    @classmethod
    def _database(cls, data: Any) -> Any:
        data = dict(data)
        parts = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"]
        given = [name for name in parts if data.get(name)]
        if given and len(given) < len(parts):
            missing = ", ".join(name for name in parts if name not in given)
            raise ValueError(f"DB_HOST, DB_PORT, DB_NAME, DB_USER and DB_PASSWORD go together; missing: {missing}")
        url = data.get("DATABASE_URL")
        if url and given:
            raise ValueError("DATABASE_URL and DB_HOST … DB_PASSWORD exclude each other; set one of the two")
        if given:
            user, password, name = (quote(str(data[k]), safe="") for k in ("DB_USER", "DB_PASSWORD", "DB_NAME"))
            host = str(data["DB_HOST"])
            # A host with a slash is the folder of a unix socket, as libpq has it.
            at = (
                f"/{name}?host={quote(host, safe='')}&port={data['DB_PORT']}"
                if "/" in host
                else (f"{host}:{data['DB_PORT']}/{name}")
            )
            url = f"postgresql://{user}:{password}@{at}"
        if url:
            data["DATABASE_URL"] = normalize_database_url(str(url))
        return data

    @model_validator(mode="after")
    def _pairs(self) -> "Settings":
        if bool(self.twenty_rest_url) != bool(self.twenty_rest_token):
            raise ValueError("TWENTY_REST_URL and TWENTY_REST_TOKEN go together; only one of them is set")
        if bool(self.slack_channel) != bool(self.slack_bot_token):
            raise ValueError("SLACK_CHANNEL and SLACK_BOT_TOKEN go together; only one of them is set")
        return self

    @property
    def imports_folder(self) -> Path:
        return Path(self.imports_dir or Path(self.data_dir) / "imports").resolve()

    @property
    def threads_in_all(self) -> int:
        """What the web server is to be started with: those that work, and those that only wait."""
        return self.web_threads + MOST_WAITING

    @property
    def has_model(self) -> bool:
        """Is a language model configured?"""
        return self.openai_api_key is not None or self.openai_base_url is not None

    @property
    def has_price(self) -> bool:
        """Is it known what the language model costs?"""
        return self.openai_model in self.llm_prices

    @property
    def pool_size(self) -> int:
        return self.db_pool_size or self.web_threads + 2

    def require_services(self) -> None:
        """What the app itself cannot run without; ``script/server`` fills these in for the embedded default."""
        for name, value in (
            ("DATABASE_URL", self.database_url.get_secret_value()),
            ("REDIS_URL", self.redis_url.get_secret_value()),
            ("SECRET_KEY", self.secret_key.get_secret_value()),
            ("FIELD_ENCRYPTION_KEYS", self.field_encryption_keys),
        ):
            if not value:
                raise ConfigError(f"{name} is not set (script/server and script/flask set it for the embedded default)")


def _split(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value or ())


#: What other drivers call ``sslmode``: asyncpg takes libpq's words, or true and false.
_SSL_MODES = {mode: mode for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")} | {
    "true": "require",
    "false": "disable",
}


def normalize_database_url(url: str) -> str:
    """Any PostgreSQL URL → ``postgresql+psycopg://…``, ``ssl=`` → ``sslmode=``. ValueError when it is not one."""
    match = re.match(r"^(postgres|postgresql)(\+[a-z0-9_]+)?://(.*)$", url, re.DOTALL)
    if not match or not match[3]:
        raise ValueError("DATABASE_URL must be a PostgreSQL URL such as postgresql://user:password@host:5432/name")
    rest, mark, query = match[3].partition("?")
    return f"postgresql+psycopg://{rest}{mark}{'&'.join(_libpq_option(pair) for pair in query.split('&'))}"


def _libpq_option(pair: str) -> str:
    name, _, value = pair.partition("=")
    if name != "ssl":
        return pair
    if value.lower() not in _SSL_MODES:
        raise ValueError(f"DATABASE_URL: ssl must be one of {', '.join(_SSL_MODES)}")
    return f"sslmode={_SSL_MODES[value.lower()]}"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``environ`` (default: the process's). ConfigError names the first bad variable in one line."""
    source = os.environ if environ is None else environ
    known = {name for field in Settings.model_fields.values() for name in _names(field.validation_alias)}
    given = {name: value for name, value in source.items() if name in known and value != ""}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        shown = f" (got {given[where]!r})" if where in given and not _secret(where) else ""
        raise ConfigError(f"{where}: {what}{shown}" if where and where not in what else what) from None


def _names(alias: Any) -> list[str]:
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _secret(name: str) -> bool:
    return any(word in name for word in ("KEY", "PASSWORD", "SECRET", "TOKEN", "URL"))


def config_table() -> str:
    """The README's configuration table, in Markdown."""
    rows = ["| variable | default | what it does |", "| --- | --- | --- |"]
    for field in Settings.model_fields.values():
        (name,) = _names(field.validation_alias)
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        if isinstance(default, Mapping):
            default = ",".join(f"{name}={into:g}/{out:g}" for name, (into, out) in default.items())
        shown = "" if default in (None, "", ()) else f"`{'on' if default is True else default}`"
        rows.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(rows)
