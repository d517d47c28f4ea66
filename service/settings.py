"""Every limit and choice of a running service: its name with the unit, its default, and the reason.

Each field is read from the environment as `SOFTSTEP_<NAME>` (upper case); `softstep serve` options override it.
docs/settings.md is written from this file, and a test holds the two together.
"""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

MiB = 1 << 20
KEYS: Final = re.compile("[0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*")
URL: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path holds one slash of the two

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


Route = Annotated[str, Field(pattern="^/[A-Za-z0-9._~:/-]*$")] | None


class Settings(BaseSettings):
    """The settings of one service, read once at start and handed on; nothing reads the environment later."""

    model_config = SettingsConfigDict(
        env_prefix="SOFTSTEP_",
        env_ignore_empty=True,  # Vertex AI sets AIP_STORAGE_URI to nothing where a model has no artifacts
        populate_by_name=True,
        loc_by_alias=False,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # one of the settings is a secret
    )

    # Where
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Loopback unless asked; the container image sets 0.0.0.0."
    )
    port: Port = Field(
        8000,
        validation_alias=AliasChoices("SOFTSTEP_PORT", "AIP_HTTP_PORT"),
        description="Port to listen on; 0 lets the system choose one. Uvicorn and Triton use 8000, MLServer 8080. "
        "Vertex AI sets it as AIP_HTTP_PORT.",
    )
    models: Path = Field(
        Path("models"),
        validation_alias=AliasChoices("SOFTSTEP_MODELS", "AIP_STORAGE_URI"),
        description="Directory of models/<name>/<version>/, or of one model without those folders. "
        "Vertex AI sets it as AIP_STORAGE_URI, which is refused where it names a bucket.",
    )
    data: Path = Field(
        Path("data"), description="Directory for what the service itself keeps. A local disk, never a network share."
    )
    predict_route: Route = Field(
        None,
        validation_alias=AliasChoices("SOFTSTEP_PREDICT_ROUTE", "AIP_PREDICT_ROUTE"),
        description="A further path that predicts with the default model. Vertex AI sets it as AIP_PREDICT_ROUTE.",
    )
    health_route: Route = Field(
        None,
        validation_alias=AliasChoices("SOFTSTEP_HEALTH_ROUTE", "AIP_HEALTH_ROUTE"),
        description="A further path that tells readiness. Vertex AI sets it as AIP_HEALTH_ROUTE.",
    )
    default_model: str | None = Field(
        None,
        description="Model that /invocations and Vertex AI routes mean. Unset: the only model, if there is just one.",
    )

    # Processes
    workers: Count = Field(
        1, description="Worker processes. One answers more than a core can parse; add one for each further core."
    )
    drain_seconds: float = Field(
        2.0,
        ge=0,
        description="Time between failing readiness and closing the listener, so that balancers look away first.",
    )
    shutdown_seconds: Seconds = Field(
        6.0,
        description="Time in-flight requests get after the listener closed. Drain and this stay under Docker's 10 s.",
    )
    scan_seconds: Seconds = Field(
        1.0,
        description="Pause between two looks at the models directory. TensorFlow Serving looks once a second.",
    )

    # Limits of a connection
    connections_max: Count = Field(
        4096,
        description="Open connections per worker; a further one is closed at once. Each idle one costs some 10 KiB.",
    )
    keep_alive_seconds: Seconds = Field(
        75.0,
        description="Time an idle connection stays open. Longer than load balancers' 60 s, so that they close first.",
    )
    header_seconds: Seconds = Field(
        10.0, description="Time from the first byte of a request to the end of its headers, however slowly they drip."
    )
    body_seconds: Seconds = Field(60.0, description="Time from the end of the headers to the last byte of the body.")
    write_seconds: Seconds = Field(
        60.0, description="Time a client may leave an answer unread before its connection is closed."
    )

    # Limits of a request
    header_bytes_max: Count = Field(
        32 * 1024,
        description="Bytes of request line and headers together, else 431. nginx allows 4 x 8 KiB, Node.js 16 KiB.",
    )
    header_count_max: Count = Field(100, description="Header lines of a request, else 431. Apache's default is 100.")
    body_bytes_max: Count = Field(
        64 * MiB, description="Bytes of a request body, else 413. Triton's default is 64 MiB."
    )
    body_bytes_in_flight_max: Count = Field(
        512 * MiB,
        description="Request body bytes a worker holds at one time, else 503; bounds memory whatever clients send.",
    )
    requests_in_flight_max: Count = Field(
        1024, description="Requests a worker works on at one time, else 503. Probes and metrics are not counted."
    )
    rows_max: Count = Field(
        65_536,
        description="Rows of one request, else 413. One request must not own a worker for long. A JSON body may have "
        "two lists or objects for each, and 4096 more.",
    )
    answer_cells_max: Count = Field(
        4_000_000,
        description="Rows x classes of one answer, else 413; some 40 to 75 MB as JSON, whatever the number of classes. "
        "Of an explanation every number that is told, 8 for an entry of `top`, and 1 for 10 characters of a name.",
    )
    json_depth_max: int = Field(
        64,
        ge=5,
        description="Nesting of a JSON body, else 400. A tensor of rows has 5 levels, so it cannot be less; Triton "
        "stops at 100.",
    )

    # Feedback
    feedback_waiting_max: Count = Field(
        8192,
        description="Feedback events of a worker that wait to be written, else 429. A core writes as many in 0.2 s.",
    )
    feedback_waiting_bytes_max: Count = Field(
        64 * MiB, description="Bytes of feedback of a worker that wait to be written, else 429."
    )
    lag_events_max: Count = Field(
        1_000_000,
        description="Committed events of a model that are not served yet, above which feedback gets 429. A core folds "
        "as many in some seconds.",
    )
    token_key: SecretStr | None = Field(
        None,
        description="Key of feedback tokens, 64 hexadecimal digits; unset: the one in the data directory. Replicas "
        "that share it take one another's tokens. Of several, separated by commas, the first seals and all open.",
    )
    token_seconds: Seconds = Field(
        2_592_000.0, description="Time in which a feedback token is taken, else 422. Thirty days."
    )

    # Limits of a model
    artifact_bytes_max: Count = Field(
        2048 * MiB, description="Bytes of one tensor file; a larger one is refused before it is read."
    )
    models_max: Count = Field(
        256, description="Model versions served at one time; further ones are refused with that reason."
    )

    # Learning
    learn: bool = Field(
        True,
        description="Take feedback and learn from it. Off, or with a data directory that is read-only: serve only.",
    )
    wait_seconds: Seconds = Field(
        10.0, description="Time that a request with wait=true waits until its event is served, else 409; it is kept."
    )
    min_seq_seconds: Seconds = Field(
        1.0, description="Time that a request with min_seq waits for the model to learn that far, else 409."
    )

    # Limits of what is kept
    disk_reserve_bytes: int = Field(
        256 * MiB,
        ge=0,
        description="Free bytes of the data directory's disk below which feedback gets 503, so that what forgets and "
        "what is checkpointed still fits.",
    )
    wal_bytes_max: Count = Field(
        1024 * MiB,
        description="Bytes of the feedback log's write-ahead log above which feedback gets 503. It is moved to its "
        "place above 64 MiB; only a reader that never ends can make it grow so.",
    )
    checkpoint_bytes_max: Count = Field(
        1024 * MiB,
        description="Bytes of all checkpoints of one model version together; the newest one is kept in any case.",
    )

    # Heavy models
    thread_after_us: Count = Field(
        200, description="Estimated microseconds of a kernel call above which it leaves the event loop for a thread."
    )
    batch_rows_max: Count = Field(
        256, description="Rows that the requests of one event-loop turn may share in one kernel call of a heavy model."
    )

    # What is told
    access_log: bool = Field(
        False, description="One line on standard error for each request, without query values or bodies."
    )
    log_json: bool = Field(True, description="Log lines as JSON objects (one a line) instead of plain text.")
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    cors_origins: tuple[str, ...] = Field(
        (),
        description='Origins that browsers may call from, such as ["https://a.example"]. Empty: CORS stays off.',
    )

    @field_validator("models")
    @classmethod
    def _is_local(cls, models: Path) -> Path:
        """Refuse the address of a store, which would read as the name of a folder that is not there."""
        if URL.match(str(models)):
            message = "Models are read from a local directory, not from a URL; copy or mount them there"
            raise PydanticCustomError("not_local", message)
        return models

    @field_validator("token_key")
    @classmethod
    def _is_key(cls, key: SecretStr | None) -> SecretStr | None:
        """Refuse at the start what no token could be sealed with, without a word of it."""
        if key is not None and not KEYS.fullmatch(key.get_secret_value()):
            raise PydanticCustomError("no_key", "A key has 64 hexadecimal digits; several are separated by commas")
        return key
