"""Every setting: name, default, help. The one place that reads the environment.

`SPEX_UPSTREAM=http://... spex-proxy up` needs nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from spex_proxy.facts.review import LABELS
from spex_proxy.facts.token_budget import read_hours


def _base_urls(urls: str) -> str:
    return ",".join(dict.fromkeys(_base_url(url.strip()) for url in urls.split(",") if url.strip() or not urls.strip()))


def _base_url(url: str) -> str:
    bare = url.rstrip("/")
    if bare.startswith("unix:") and bare.removeprefix("unix:").strip("/"):
        return bare
    if not bare.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://, or be unix:/PATH")
    if bare.endswith("/v1"):
        raise ValueError("must not end with /v1: apps ask for other paths of the server too")
    return bare


def _hours(text: str) -> str:
    read_hours(text)
    return text


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(min_length=1)]
BaseUrls = Annotated[str, AfterValidator(_base_urls)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda level: str(level).upper())]
SchedulingPolicy = Literal["unknown", "fcfs", "priority"]
ScorerName = Literal["auto", "engine", "generate", "completions", "first_token", "regenerate"]
Handoff = Literal["best_effort", "durable"]
ExplainCallers = Literal["local", "key", "anyone", "nobody"]
Tokens = Annotated[int | None, Field(gt=0)]
Hours = Annotated[str, AfterValidator(_hours)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Frozen once read. Each field's environment name is SPEX_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="SPEX_", frozen=True, extra="forbid")

    upstream: BaseUrls = Field(
        "http://127.0.0.1:8000",
        description="Base URL of the vLLM server, without /v1, or unix:/PATH; several replicas with commas between.",
    )
    upstream_ca: Path | None = Field(
        None, description="PEM file of the authorities that sign an https upstream's certificate; else the system's."
    )
    upstream_api_key: SecretStr | None = Field(
        None, description="Key for our own background requests, if vLLM was started with --api-key."
    )
    store: str = Field("sqlite:///var/spex.db", description="SQLAlchemy URL of the store.")
    project: Name = Field("default", description="Name under which everything is stored.")

    host: str = Field("127.0.0.1", description="Address of the relay port, which apps use; or unix:/PATH of a socket.")
    port: Port = Field(8080, description="Relay port. Every path on it goes to the upstream.")
    workers: int = Field(
        1, ge=1, le=64, description="Relay processes on the relay port; a parent then has the second port for all."
    )
    admin_host: str = Field(
        "127.0.0.1",
        description="Address of the second port: pages, JSON API, health and metrics. It asks nobody who they are.",
    )
    admin_names: str = Field(
        "",
        description="Names, with commas between, under which the second port shows its content besides localhost and "
        "IP addresses. Without any, it has every name while it listens beyond loopback.",
    )
    admin_port: Port = Field(8081, description="Second port.")

    capture_rate: Share = Field(1.0, description="Share of requests that are captured to the store.")
    explain_rate: Share = Field(0.01, description="Share of captured requests that are explained.")
    rules: Path | None = Field(
        None, description="YAML file with sampling rules, read again when it changes; the two rates hold behind them."
    )
    explain_callers: ExplainCallers = Field(
        "local",
        description="Who may use the header x-spex-explain: local (anyone while the relay listens on loopback, else "
        "who shows the key), key, anyone, nobody.",
    )
    explain_key: SecretStr | None = Field(
        None, description="What a caller shows as x-spex-key to be allowed x-spex-explain."
    )
    handover_key: SecretStr | None = Field(
        None,
        description="What vLLM's capture middleware (spex-proxy-vllm) shows to hand over what passed it; without a key "
        "nothing is taken from it.",
    )
    draw_secret: SecretStr = Field(
        SecretStr("spex"), description="Keys the two draws; equal on all replicas, so that they agree."
    )
    max_body_bytes: int = Field(4_194_304, gt=0, description="Longest request or answer that is captured, in bytes.")
    queue_items: int = Field(1_024, gt=0, description="Captures that may wait to be stored; more are dropped, counted.")
    queue_bytes: int = Field(67_108_864, gt=0, description="Bytes that waiting captures may hold together.")
    handoff: Handoff = Field(
        "best_effort",
        description="How captures reach the store: best_effort (they wait in memory) or durable (each is on disk "
        "before its answer ends, so that a killed relay loses none).",
    )
    handoff_wait_s: float = Field(
        0.25, gt=0, description="Seconds for which the end of an answer waits for the disk, at most (durable)."
    )
    spool: Path = Field(Path("var/spool"), description="Folder for captures under durable hand-off: a local disk.")
    spool_bytes: int = Field(
        1_073_741_824, gt=0, description="Bytes that captures may take there; more are dropped, counted."
    )

    segmenter: str = Field(
        "auto", description="What the players are: auto, message, document, sentence, word or a plugin's."
    )
    masker: str = Field("delete", description="How a player is taken out of the prompt.")
    value: str = Field("sum_logprob", description="What is measured of the original output.")
    method: str = Field("stack", description="How the spectrum is recovered from the masks.")
    budget: int = Field(256, ge=8, description="Most masks for one explanation.")
    target_r2: Share = Field(0.95, description="Stop when out-of-fold R2 surely reaches this.")
    seed: int = Field(0, ge=0, description="Fixes masks, folds and trees.")
    scorer: ScorerName = Field(
        "auto",
        description="How masks are asked: engine (our plugin inside vLLM), generate (vLLM's V2 runner and "
        "--enable-scale-out), completions (any vLLM), or auto: the first of these that the server can do, and if none, "
        "regenerate (any server: answers are generated anew and compared). first_token scores one token, on any vLLM.",
    )
    background_priority: int = Field(
        100, gt=0, description="vLLM priority of masked queries; production's is 0, larger yields to it."
    )
    scheduling_policy: SchedulingPolicy = Field(
        "unknown", description="vLLM's --scheduling-policy, which it does not show: unknown, fcfs or priority."
    )

    gate: Literal["on", "off"] = Field(
        "on",
        description="Whether masked queries wait until production leaves room (on), or are asked whenever there is a "
        "job (off).",
    )
    board: Path = Field(
        Path("var/load-board"),
        description="File in which the relays of this host count production for its workers' gate; the same for all.",
    )
    gate_hours: Hours = Field("", description="Part of the day (UTC) in which explaining may run, like 22:00-06:00.")
    tokens_per_minute: Tokens = Field(None, description="Most prompt tokens that explaining may cost in a minute.")
    tokens_per_hour: Tokens = Field(None, description="Most prompt tokens that explaining may cost in an hour.")
    tokens_per_day: Tokens = Field(None, description="Most prompt tokens that explaining may cost in a day.")

    worker_concurrency: int | None = Field(
        None, ge=1, description="Jobs that a worker runs at once; by default 1 on SQLite, 2 on PostgreSQL."
    )
    worker_port: Port | None = Field(
        None,
        description="Port of a worker's own health and metrics, at the second port's address; each worker of a host "
        "has another. Without one a worker's counters are nowhere to be read.",
    )
    worker_ttl_s: float = Field(
        20.0, ge=1, description="A worker that was not heard of for so many seconds is dead; others take its jobs over."
    )
    job_tries: int = Field(8, ge=1, description="Tries of a job that finds the model server or the store away.")
    job_pause_s: float = Field(
        5.0, gt=0, description="Seconds before the second try; each further pause is twice as long, up to 5 minutes."
    )

    review_labels: str = Field(
        ",".join(LABELS), description="What a reviewer's verdict may be: words with commas between."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Key of the signature (HMAC-SHA256) on what rules send to their webhooks."
    )
    review_hold_s: float = Field(900.0, gt=0, description="Seconds for which a reviewer's claim of a case holds.")

    otlp_endpoint: str | None = Field(
        None, description="OpenTelemetry collector (OTLP over HTTP), http://host:4318; without it nothing is sent."
    )
    log_level: LogLevel = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @property
    def upstreams(self) -> tuple[str, ...]:
        """One base URL for each replica."""
        return tuple(self.upstream.split(","))
