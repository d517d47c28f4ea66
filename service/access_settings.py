"""The settings of access: who may call, over which connections, and how often."""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings

from service.setting_types import AlgorithmList, Count, JwksLocation, NetworkList, Port, Seconds

# JWTs are accepted if all of these are set.
JWT_SETTINGS: Final = ("jwt_issuer", "jwt_audience", "jwt_keys")
# Settings that mean nothing without another one.
NEEDED: Final = {"tls_key": "tls_certificate", "tls_client_ca": "tls_certificate", "tls_subjects": "tls_client_ca"}


class AccessSettings(BaseSettings):
    """The part of `Settings` that says who may call."""

    # Who may call
    keys_file: Path | None = Field(
        None,
        description="File of API keys, which `softstep keys` writes. Unset: keys.json in the data directory, or the "
        "keys of the log that `SOFTSTEP_LOG` names. While there are none, `SOFTSTEP_OPEN` says who may call.",
    )
    open: bool = Field(
        False,
        description="If there are no keys, let everyone who reaches the port make every call. If false, a service "
        "without keys listens on loopback addresses only, and answers requests for `localhost` only.",
    )
    audit_file: Path | None = Field(
        None,
        description="File of JSON lines to which changes of keys, loads, unloads, restores, purges and skips are "
        "appended. Unset: audit.jsonl in the data directory.",
    )
    jwt_issuer: str | None = Field(
        None,
        description="Issuer of the JWTs that callers may send, exactly as in their claim `iss`. Set it, the audience "
        "and the keys, or none of the three.",
    )
    jwt_audience: str | None = Field(
        None, description="Audience of JWTs: the value of their claim `aud`, or one of its values."
    )
    jwt_keys: JwksLocation = Field(
        None,
        description="JSON Web Key Set of the issuer: a file, or the URL that the issuer calls `jwks_uri`. It is read "
        "again when the file changes.",
    )
    jwt_keys_seconds: Seconds = Field(
        300.0,
        description="Pause between two readings of the key set at a URL. A key that the issuer withdraws is refused "
        "after that time. A JWT of an unknown key has it read earlier.",
    )
    jwt_algorithms: AlgorithmList = Field(
        ("RS256", "ES256"), description="Algorithms of the signatures of JWTs, separated by commas; others are refused."
    )
    jwt_scopes_claim: str = Field(
        "scope", description="Claim of a JWT with the scopes: a list, or a string with spaces between them."
    )
    jwt_scope_prefix: str = Field(
        "softstep:",
        description="What stands before `predict`, `feedback` and `admin` in that claim, so that scopes of other "
        "services do not count.",
    )
    jwt_models_claim: str | None = Field(
        None,
        description="Claim of a JWT with the names of models that it is for, in which `*` stands for any characters. "
        "Unset: every model. If set, a JWT without the claim is for no model.",
    )

    metrics_access: Literal["key", "open"] = Field(
        "key",
        description="Who may read /metrics in a service with keys: `key` for keys with the scope predict that are for "
        "all models, because it names them all; `open` for everybody.",
    )
    docs_access: Literal["key", "open"] = Field(
        "open",
        description="Who may read /docs in a service with keys: `open` for everybody, because the page holds nothing "
        "about the models; `key` for every key. A browser sends none by itself, but a proxy can add one.",
    )
    openapi_access: Literal["key", "open"] = Field(
        "open",
        description="Who may read /openapi.json in a service with keys: `open` for everybody, because the document is "
        "that of the release without a key; `key` for every key. With a key it has the rows of the models that the key "
        "permits. /docs needs it open, or a proxy that adds a key.",
    )

    # Over which connections
    tls_certificate: Path | None = Field(
        None,
        description="PEM file of the service's certificate, then those of its issuers. Set: all ports speak TLS only.",
    )
    tls_key: Path | None = Field(
        None, description="PEM file of its private key, without a passphrase. Unset: in the file of the certificate."
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of the authorities that sign the certificates of clients. Unset: none is asked for."
    )
    tls_client_certificate: Literal["required", "optional"] = Field(
        "required",
        description="With a client CA: whether a client without a certificate may connect. Probes of an orchestrator "
        "have none.",
    )
    tls_subjects: Path | None = Field(
        None,
        description="JSON file of what clients may do by their certificates: names to scopes, models and limits. Calls "
        "without a key need such a certificate then.",
    )
    admin_port: Port | None = Field(
        None,
        description="Second port, with every call. Set: the first port answers 404 to feedback and administration.",
    )
    connections_per_address_max: Count | None = Field(
        None,
        description="Open connections per worker from one address, of IPv6 from one /64; a further one is closed at "
        "once. Proxies are exempt.",
    )
    proxies: NetworkList = Field(
        (),
        description="Addresses and networks of proxies, such as 10.0.0.0/8,192.0.2.7, which tell a client's address in "
        "a header. Of all others the header is ignored.",
    )
    proxy_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for",
        description="Header in which the proxies tell the client's address. Only one counts: a proxy may pass on what "
        "a client wrote to another.",
    )

    @field_validator("tls_key", "tls_client_ca", "tls_subjects")
    @classmethod
    def _check_needed(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        """Reject a setting that has no effect without another one."""
        needed = NEEDED[info.field_name or ""]
        if path is not None and info.data.get(needed) is None:
            message = f"It has no effect without SOFTSTEP_{needed.upper()}; set both"
            raise PydanticCustomError("not_alone", message)
        return path

    @model_validator(mode="after")
    def _require_all_of_jwt(self) -> Self:
        if len({getattr(self, name) is None for name in JWT_SETTINGS}) > 1:
            message = "SOFTSTEP_JWT_ISSUER, _AUDIENCE and _KEYS belong together; set all three or none"
            raise PydanticCustomError("incomplete_jwt", message)
        return self
