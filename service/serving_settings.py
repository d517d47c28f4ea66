"""The settings of serving and learning: every limit with its unit, its default and the reason."""

from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings

from service.setting_types import Count, LocalFolder, LogAddress, MiB, OriginList, Port, Route, Seconds, TokenKeyList


class ServingSettings(BaseSettings):
    """The part of `Settings` that says what is served, and within which limits."""

    # Address and directories
    host: str = Field("127.0.0.1", description="Address to listen on. The container image sets 0.0.0.0.")
    port: Port = Field(
        8000,
        validation_alias=AliasChoices("SOFTSTEP_PORT", "AIP_HTTP_PORT"),
        description="Port to listen on; 0 means any free port. Uvicorn and Triton use 8000, MLServer 8080. Vertex AI "
        "sets it as AIP_HTTP_PORT.",
    )
    models: LocalFolder = Field(
        Path("models"),
        validation_alias=AliasChoices("SOFTSTEP_MODELS", "AIP_STORAGE_URI"),
        description="Directory of <name>/<version>/ folders, or the folder of a single model. Vertex AI sets it as "
        "AIP_STORAGE_URI; the address of a bucket is rejected.",
    )
    data: Path = Field(
        Path("data"),
        description="Data directory: the feedback log and what was learned. A local disk, never a network share.",
    )
    predict_route: Route = Field(
        None,
        validation_alias=AliasChoices("SOFTSTEP_PREDICT_ROUTE", "AIP_PREDICT_ROUTE"),
        description="Additional path that predicts with the default model. Vertex AI sets it as AIP_PREDICT_ROUTE.",
    )
    health_route: Route = Field(
        None,
        validation_alias=AliasChoices("SOFTSTEP_HEALTH_ROUTE", "AIP_HEALTH_ROUTE"),
        description="Additional path that reports readiness. Vertex AI sets it as AIP_HEALTH_ROUTE.",
    )
    default_model: str | None = Field(
        None,
        description="Model that answers at /invocations and at Vertex AI's routes. Unset: the only model, if there "
        "is one.",
    )

    # Processes
    workers: Count = Field(1, description="Worker processes. One keeps a core busy; add one for each further core.")
    drain_seconds: float = Field(
        2.0,
        ge=0,
        description="Time between failing readiness and closing the port, so that load balancers stop first. "
        "Meanwhile each answer closes its connection.",
    )
    shutdown_seconds: Seconds = Field(
        6.0,
        description="Time for requests in flight after the drain. Below Docker's 10 s together with it.",
    )
    scan_seconds: Seconds = Field(
        1.0,
        description="Pause between two scans of the models directory. TensorFlow Serving scans once a second.",
    )

    # Limits of a connection
    connections_max: Count = Field(
        4096,
        description="Open connections per worker; a further one is closed at once. An idle one takes about 10 KiB.",
    )
    keep_alive_seconds: Seconds = Field(
        75.0,
        description="Time an idle connection stays open. Longer than the 60 s of load balancers, so that they close "
        "first.",
    )
    header_seconds: Seconds = Field(
        9.0,
        description="Time from the first byte of a request to the end of its headers, and for a TLS handshake. A slow "
        "client is gone within 10 s.",
    )
    body_seconds: Seconds = Field(
        25.0,
        description="Time from the end of the headers to the last byte of the body, plus what "
        "`SOFTSTEP_BODY_RATE_MIN` adds. A client that sends next to nothing is gone within 30 s.",
    )
    body_rate_min: Count = Field(
        64 * 1024,
        description="Bytes of a body that add a second to its time, so that a large body over a slow line arrives: 64 "
        "KiB/s is 0.5 Mbit/s.",
    )
    write_seconds: Seconds = Field(
        60.0, description="Time a client may leave a response unread before its connection is closed."
    )

    # Limits of a request
    header_bytes_max: Count = Field(
        32 * 1024,
        description="Bytes of request line and headers; more gets 431. nginx allows 4 x 8 KiB, Node.js 16 KiB.",
    )
    header_count_max: Count = Field(
        100, description="Header lines of a request; more get 431. Apache's default is 100."
    )
    body_bytes_max: Count = Field(
        64 * MiB, description="Bytes of a request body; more gets 413. Triton's default is 64 MiB."
    )
    body_bytes_in_flight_max: Count = Field(
        512 * MiB,
        description="Bytes of request bodies that a worker holds at one time; more gets 503. Bounds its memory.",
    )
    requests_in_flight_max: Count = Field(
        1024, description="Requests in progress per worker; more get 503. Probes and metrics are not counted."
    )
    queue_seconds: Seconds = Field(
        1.0,
        description="Time that requests may wait. A worker whose requests wait longer for a second refuses some with "
        "503: feedback first, then explanations, then predictions. Answers then take longer than that by the time of "
        "the refusals, and feedback by that of its commit: set it well below what your clients accept.",
    )
    rows_max: Count = Field(
        65_536,
        description="Rows of one request; more get 413, so that one request does not occupy a worker for long. A "
        "JSON body may have two lists or objects for each row, and 4096 more.",
    )
    answer_cells_max: Count = Field(
        4_000_000,
        description="Rows x classes of one response; more get 413. As JSON they are about 40 to 75 MB. In an "
        "explanation every number counts 1, an entry of `top` 8, and 10 characters of a name 1.",
    )
    json_depth_max: int = Field(
        64,
        ge=5,
        description="Nesting of a JSON body; deeper gets 400. A tensor of rows needs 5. Triton allows 100.",
    )

    # Feedback
    feedback_waiting_max: Count = Field(
        8192,
        description="Feedback events waiting to be written, per worker; more get 429. A core writes as many in 0.2 s.",
    )
    feedback_waiting_bytes_max: Count = Field(
        64 * MiB, description="Bytes of feedback waiting to be written, per worker; more gets 429."
    )
    lag_events_max: Count = Field(
        1_000_000,
        description="Committed events of a model that are not served yet; above it feedback gets 429. A core folds "
        "as many in a few seconds.",
    )
    token_key: TokenKeyList = Field(
        None,
        description="Key of feedback tokens, 64 hexadecimal digits. Unset: the one in the data directory. Replicas "
        "that share it accept one another's tokens. Comma-separated keys: the first encrypts, all "
        "decrypt.",
    )
    token_seconds: Seconds = Field(
        2_592_000.0, description="Lifetime of a feedback token; an expired one gets 422. Thirty days."
    )

    # Feedback log
    log: LogAddress = Field(
        None,
        description="Address of a feedback log in PostgreSQL, as libpq accepts it, which any number of services share. "
        "Set it in the environment, because options are visible to other users. Unset: SQLite in the data directory.",
    )
    log_copies: Literal["1", "2", "external"] = Field(
        "2",
        description="Servers of PostgreSQL that have an event before it is acknowledged. `2`: feedback is refused "
        "unless the database waits for a standby. `1`: a single server. `external`: copied by the storage below it.",
    )
    role: Literal["all", "worker", "learner"] = Field(
        "all",
        description="What this replica of a log in PostgreSQL does. `learner`: it folds events, and answers health and "
        "metrics alone. `worker`: it answers calls, and serves what learners have folded. `all`: both.",
    )
    serve_unlearned: bool = Field(
        False,
        description="Be ready before the models have learned what a log in PostgreSQL had at the start. If false, a "
        "service that starts while the database cannot be reached is not ready until it can.",
    )
    log_seconds: Seconds = Field(
        5.0,
        description="Time that one call of PostgreSQL may take. Then its connection is closed, feedback gets 503, and "
        "the event may be stored or not.",
    )
    log_prepare: bool = Field(
        False,
        description="Prepare the statements of PostgreSQL once in each connection, so that its server does not parse "
        "each again. Only without a pooler of transactions, or with one that keeps them, as PgBouncer from 1.21.",
    )
    log_archive_seconds: Seconds | None = Field(
        None,
        description="How long archives of PostgreSQL's write-ahead log and its backups are kept. The metadata of a "
        "model then say until when they may hold a forgotten row. Unset: unknown.",
    )

    # Limits of a model
    artifact_bytes_max: Count = Field(
        2048 * MiB, description="Bytes of one tensor file; a larger one is rejected before it is read."
    )
    models_max: Count = Field(
        256, description="Model versions served at one time; further ones are rejected with that reason."
    )

    fields_max: Count = Field(1024, description="Fields of a model; one with more is rejected. At most 65,536.")
    columns_max: Count = Field(
        1 << 24,
        description="Columns of all fields of a model; one with more is rejected. At most 2²⁶, where the weights of "
        "one class take 256 MiB.",
    )
    entries_max: Count = Field(
        65_536,
        description="Columns of a row of fields that are not 0, and n-grams of a text; more get 413. A text "
        "of 22,000 characters has as many n-grams of one to three.",
    )

    # Learning
    learn: bool = Field(
        True,
        description="Accept feedback and learn from it. If false, or if the data directory is read-only: serve only.",
    )
    ready_requires_learning: bool = Field(
        False,
        description="Fail readiness if the data directory cannot be written at the start, instead of serving without "
        "learning.",
    )
    wait_seconds: Seconds = Field(
        10.0,
        description="Time for a request with wait=true until its event is served. On timeout the status is 409; the "
        "event is stored, and resending its id is safe.",
    )
    min_seq_seconds: Seconds = Field(
        1.0, description="Time for a request with min_seq until the model has learned that far; on timeout 409."
    )

    # Limits of stored data
    disk_reserve_bytes: int = Field(
        256 * MiB,
        ge=0,
        description="Free bytes of the data directory's disk; below it feedback gets 503, so that forgets and "
        "checkpoints still fit.",
    )
    wal_bytes_max: Count = Field(
        1024 * MiB,
        description="Bytes of the feedback log's write-ahead log; above it feedback gets 503. It is emptied at 64 "
        "MiB; only a reader that never finishes makes it grow beyond.",
    )
    checkpoint_bytes_max: Count = Field(
        1024 * MiB,
        description="Bytes of all checkpoints of one model version; the newest is always kept.",
    )

    # Heavy models
    thread_after_us: Count = Field(
        200,
        description="Estimated microseconds of a kernel call; a longer one runs in a thread, not on the event loop.",
    )
    batch_rows_max: Count = Field(
        256, description="Rows of concurrent requests that share one kernel call of a heavy model."
    )

    # Logs and documentation
    access_log: bool = Field(
        False, description="Write one line to standard error for each response, without query values or bodies."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="Format of the log: one JSON object a line, or text for people."
    )
    docs: bool = Field(True, description="Serve /docs and /openapi.json.")
    console: bool = Field(True, description="Serve the console at / to browsers, unless another route has that path.")
    cors_origins: OriginList = Field(
        (),
        description="Origins whose web pages may call, such as https://a.example,https://b.example, or * for all. "
        'Empty: CORS stays off. A JSON list is accepted too: ["https://a.example"].',
    )

    @model_validator(mode="after")
    def _require_shared_log(self) -> Self:
        if self.role != "all" and (self.log is None or not self.learn):
            message = "a worker or a learner needs a log in PostgreSQL; set SOFTSTEP_LOG, and leave SOFTSTEP_LEARN on"
            raise PydanticCustomError("role_without_log", message)
        return self
