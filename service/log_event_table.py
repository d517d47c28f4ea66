"""The table of log events: every kind of line that the service writes to its log, with its fields.

A line has these members, and then the fields of its event:

    time        when it was written, in UTC, with milliseconds
    level       info, warning or error
    event       the stable name of the event, for programs
    message     one sentence for people; its words may change
    process     the id of the process
    request_id  the X-Request-Id of the request that caused the line, if there is one
    exception   the traceback of an exception, if there is one

No field holds a payload, an event's id, a query or a secret. docs/write_logs.py writes docs/logs.md from this file, and
a test compares the fields with the calls of `logger`.
"""

import logging
import string
from typing import Final, NamedTuple

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR


class LogEvent(NamedTuple):
    """One row of the table.

    Attributes:
        level: The level of its lines.
        message: The sentence, with the fields in braces.
        meaning: When the event happens, for the documentation.
        more: Fields that the sentence does not name.
    """

    level: int
    message: str
    meaning: str
    more: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the event's fields."""
        return *(name for _, name, _, _ in string.Formatter().parse(self.message) if name), *self.more


EVENTS: Final[dict[str, LogEvent]] = {
    # Start and stop
    "started": LogEvent(INFO, "serving on {url}", "The service listens.", ("release", "kernels", "workers")),
    "start_failed": LogEvent(
        ERROR, "{reason}", "The address, the data directory or the file of API keys cannot be used; exit code 1."
    ),
    "log_not_reached": LogEvent(
        WARNING,
        "the feedback log cannot be reached: {reason}",
        "PostgreSQL does not answer at the start. The service is ready once its models have learned what is there.",
    ),
    "open_service": LogEvent(
        WARNING,
        "SOFTSTEP_OPEN is true and there are no keys: everyone who reaches {url} may make every call",
        "At every start of such a service.",
    ),
    "slow_processor": LogEvent(
        WARNING,
        "this processor has no fused multiply-add; predictions are correct but slow",
        "The processor is older than the compiled kernels expect.",
    ),
    "access_not_followed": LogEvent(
        ERROR, "the files of access could not be followed", "A fault of the service; the next look tries again."
    ),
    "keys_unknown": LogEvent(
        WARNING, "every call is refused until the log was asked for keys: {reason}", "No database at a first start."
    ),
    "facts_not_followed": LogEvent(
        WARNING, "keys and models stay as they were: {reason}", "The log in PostgreSQL or the service has a fault."
    ),
    "keys_not_read": LogEvent(
        WARNING,
        "the API keys stay as they were: {reason}",
        "The file of API keys, or what a shared log has of them, cannot be read or is damaged, or the disk fails.",
    ),
    "jwks_read": LogEvent(
        INFO,
        "the key set of the issuer of JWTs has {keys} usable keys",
        "The key set was read for the first time, or has changed; in each worker.",
    ),
    "jwks_not_read": LogEvent(
        WARNING,
        "the key set of the issuer of JWTs cannot be used: {reason}",
        "The key set cannot be read; the keys that were read before stay. Once for each reason in each worker.",
    ),
    "audit_not_written": LogEvent(
        ERROR,
        "{actor}: {action} of {object}: {outcome}; the audit log has no such line: {reason}",
        "The audit log cannot be written. The call itself was carried out; this line is its record.",
    ),
    "files_reread": LogEvent(
        INFO,
        "{files}: read again",
        "A file of TLS or the certificate subjects have changed, or the service received SIGHUP; in each worker.",
    ),
    "files_not_reread": LogEvent(
        WARNING,
        "{files}: what was read before stays in use: {reason}",
        "Such a file has changed, but cannot be read or is damaged. It is tried again twice a second.",
    ),
    "admin_port": LogEvent(
        INFO, "feedback and administration on {url}", "The service listens on SOFTSTEP_ADMIN_PORT too."
    ),
    "grpc_port": LogEvent(INFO, "gRPC on {url}", "The service listens on SOFTSTEP_GRPC_PORT too."),
    "overload_began": LogEvent(
        WARNING,
        "requests wait for {delay_seconds} s, longer than SOFTSTEP_QUEUE_SECONDS; some get 503 from now on",
        "Requests have waited too long for a second; feedback is refused first, then explanations, then predictions.",
    ),
    "overload_ended": LogEvent(INFO, "all requests are answered again", "No request was refused for 5 s."),
    "limits_full": LogEvent(
        WARNING,
        "all {buckets} buckets of limits are in use; requests that need another one get 503",
        "More keys and models are near their limits at one time than can be counted; at most once a minute.",
    ),
    "learning_unavailable": LogEvent(
        WARNING,
        "{directory} cannot be written ({reason}); serving without learning",
        "Learning is on, but the data directory is read-only or cannot be made.",
    ),
    "disk_below_reserve": LogEvent(
        WARNING,
        "the disk of the data directory has {free_bytes} of {total_bytes} bytes free, less than "
        "SOFTSTEP_DISK_RESERVE_BYTES ({reserve_bytes}), so feedback gets 503; free space, use a larger disk or lower "
        "the setting",
        "The disk is smaller or fuller than the reserve; once, at the start.",
    ),
    "snapshots_not_sent": LogEvent(
        WARNING, "workers get no snapshots: {reason}", "An earlier release made the tables: run `softstep migrate`."
    ),
    "log_upgraded": LogEvent(
        INFO,
        "the feedback log is upgraded to version {schema} of its schema; earlier releases refuse it from now on",
        "The log of an earlier release was checked and upgraded, once, at the start.",
    ),
    "draining": LogEvent(
        INFO,
        "stopping after {signal}: readiness fails, and the listener closes in {drain_seconds} s",
        "The service received SIGTERM or SIGINT.",
    ),
    "listener_closed": LogEvent(
        INFO,
        "the listener is closed; requests in flight have {shutdown_seconds} s",
        "The drain is over; the workers stop.",
    ),
    "workers_stopped": LogEvent(INFO, "the workers have stopped", "Every worker has exited; the learner stops next."),
    "stopped": LogEvent(INFO, "stopped", "The last line; the exit code is 0."),
    # Processes
    "child_started": LogEvent(
        INFO, "{child} started as process {pid}", "A worker or the learner was started, also after a crash."
    ),
    "child_not_started": LogEvent(
        ERROR, "{child} cannot be started: {reason}", "The system has no process or memory left; it is tried again."
    ),
    "child_crashed": LogEvent(ERROR, "{child} crashed", "An exception ended a worker or the learner."),
    "child_exited": LogEvent(
        WARNING,
        "{child} (process {pid}) exited: {cause}; it starts again in {restart_seconds} s",
        "A worker or the learner exited by itself; the cause is a signal's name or an exit code.",
    ),
    "children_killed": LogEvent(
        WARNING, "killing {count} {children} that did not stop in time", "The time of the shutdown is over."
    ),
    "uncaught_exception": LogEvent(ERROR, "an exception was not caught", "A fault outside of any request."),
    # Models
    "model_loaded": LogEvent(INFO, "model {model} version {version}: ready at seq {seq}", "A version is served."),
    "model_refused": LogEvent(
        WARNING, "model {model} version {version} refused: {reason}", "A version on disk cannot be served."
    ),
    "model_unloaded": LogEvent(INFO, "model {model} version {version}: unloaded", "A version is served no longer."),
    "unload_list_damaged": LogEvent(
        WARNING,
        "the list of unloaded models stays as it was: {reason}",
        "The list that the replicas of a shared log have is damaged. It has no effect until it can be parsed.",
    ),
    "unload_list_not_copied": LogEvent(
        WARNING,
        "the list of unloaded models is not copied to the data directory: {reason}",
        "The list is in force. A start while the database cannot be reached would use an older one.",
    ),
    "model_removed": LogEvent(INFO, "model {model} version {version}: removed", "A version is no longer on disk."),
    "model_differs": LogEvent(
        WARNING,
        "model {model} version {version} differs from the artifact of its stream, which is served",
        "The files of a version that has learned were changed.",
    ),
    "folder_not_served": LogEvent(
        WARNING,
        "folder {folder} is not served: {reason}",
        "A folder below the models directory looks like a model; once for each folder and reason.",
    ),
    "models_unreadable": LogEvent(WARNING, "models directory: {reason}", "The models directory cannot be read."),
    "models_readable": LogEvent(INFO, "models directory: readable again", "The models directory can be read again."),
    "scan_failed": LogEvent(ERROR, "the scan of the models directory failed", "A fault; the next scan tries again."),
    "snapshot_refused": LogEvent(
        WARNING,
        "a snapshot of model {model} version {version} cannot be served: {reason}",
        "A learned state cannot be read; the one before is served.",
    ),
    "past_state_failed": LogEvent(
        WARNING,
        "the state of model {model} version {version} at seq {seq} cannot be folded: {reason}",
        "A request needs a state of the past. It is answered with 202 and starts another attempt when it is repeated.",
    ),
    "load_applied": LogEvent(INFO, "every worker has done the {action} of model {model}", "A load or unload was done."),
    # Requests
    "access": LogEvent(
        INFO,
        "{method} {route} {status}",
        "A response was sent; only with `SOFTSTEP_ACCESS_LOG`. `route` is the path's template, or null; `model`, "
        "`version` and `seq` are of the state that answered, or null; `duration_ms` is the time from the "
        "first byte of the request to the response; the bytes are those of the bodies that were read and sent. "
        "`client` is the address of the connection, or the one that a proxy of `SOFTSTEP_PROXIES` names.",
        ("client", "model", "version", "seq", "duration_ms", "bytes_in", "bytes_out"),
    ),
    "request_failed": LogEvent(ERROR, "a request failed", "A fault of the service; the response is 500."),
    "connection_failed": LogEvent(ERROR, "the protocol failed", "A fault of the service; the connection is closed."),
    # Feedback and administration
    "admin_event": LogEvent(
        INFO,
        "{kind} of model {model} version {version} is stored as event {seq}",
        "An administrative call was acknowledged; `duplicate` if an earlier one had its id. Of the events of one "
        "correction, the last in each version.",
        ("duplicate",),
    ),
    "feedback_refused": LogEvent(
        WARNING,
        "feedback was refused ({count} events since the last such line): {reason}",
        "The disk or the write-ahead log is too full: at once, then once a minute in each worker.",
        ("code",),
    ),
    "feedback_accepted": LogEvent(
        INFO,
        "feedback is accepted again; {count} more events were refused",
        "The first event that is written a minute or more after such a line.",
    ),
    "feedback_not_written": LogEvent(
        ERROR,
        "feedback is not written: {reason}",
        "The log or a model's files cannot be used: at once, then once a minute in each worker.",
        ("code", "count"),
    ),
    "writer_failed": LogEvent(
        ERROR, "writing feedback failed; the log will be opened again", "A fault of the service in the writer's thread."
    ),
    "mark_not_written": LogEvent(
        ERROR, "feedback is committed, but its stream cannot be marked", "The next start cannot check that it is there."
    ),
    "log_not_closed": LogEvent(ERROR, "the feedback log cannot be closed", "The disk failed while the log was closed."),
    "result_not_reported": LogEvent(
        ERROR, "the result of a submission cannot be reported", "A fault of the service; that client gets no response."
    ),
    # Learning
    "learner_paused": LogEvent(
        ERROR,
        "the learner, or the receiver of a worker, pauses: it cannot use the feedback log",
        "The feedback log cannot be read, and is tried again: at once, then once a minute for each reason.",
    ),
    "learning_failed": LogEvent(
        ERROR, "{model}/{version}: learning failed", "A fault of the service in the fold; it is tried again."
    ),
    "learning_held": LogEvent(
        ERROR, "{model}/{version}: learning is held: {reason}", "The stream is tried again after growing pauses."
    ),
    "learning_stalled": LogEvent(
        ERROR,
        "{model}/{version}: learning is stalled at event {seq}; skip it, or roll back to before it",
        "The fold failed at one event several times.",
    ),
    "log_forked": LogEvent(
        WARNING,
        "{model}/{version}: the log has another event {seq} than this service had learned, and is learned again",
        "PostgreSQL has failed over to a server without some events, which were not acknowledged; others are folded.",
    ),
    "state_diverged": LogEvent(
        ERROR,
        "{model}/{version}: the state at event {seq} is another one than that of other replicas; it is learned again",
        "A fault of memory, of a disk or of a processor, here or in the replica that had that state first.",
    ),
    "not_erased_yet": LogEvent(
        WARNING,
        "forgotten events are not erased from the log yet: {reason}",
        "The log in PostgreSQL is tried again after growing pauses: at once, then once a minute for each reason.",
    ),
    "learning_continues": LogEvent(INFO, "{model}/{version}: learning continues", "A held stream is learned again."),
    "fold_upgraded": LogEvent(
        WARNING,
        "{model}/{version} continues with a new fold, from its state at {seq}",
        "This release folds events in another way than the one before.",
    ),
    # Packages
    "library": LogEvent(
        INFO, "", "A line of a package, such as uvicorn or asyncio, with its own level and message.", ("logger",)
    ),
}
