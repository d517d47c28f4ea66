"""Exposure: who can reach a service, and whether it needs keys for that.

    keys, or another source of identities    any address, any Host
    neither                                  loopback addresses only, and Host names of loopback only
    neither, and SOFTSTEP_OPEN=true          any address, any Host: everyone who reaches the port may make every call

The names are checked because of DNS rebinding: the name of a web page can be made to resolve to 127.0.0.1, and the
page's scripts then reach the service as if it were the page's own server. Their requests carry the page's name as Host.
"""

import shlex
from ipaddress import ip_address

from service.access.key_file import file_state, read_keys
from service.access.log_keys import follows_keys
from service.configuration import InvalidSettingsError
from service.errors import ApiKeysError
from service.settings import Settings


def has_identities(settings: Settings) -> bool:
    """Return whether a service knows its callers: by API keys, JWTs or the certificates of clients.

    Raises:
        ApiKeysError: The file of API keys cannot be read, or is damaged.
    """
    try:
        has_keys = file_state(settings.keys_path) is not None
        if has_keys:
            read_keys(settings.keys_path)
    except OSError as error:
        raise ApiKeysError(f"the file of API keys cannot be read: {error.strerror}") from None
    others = settings.jwt_issuer is not None or settings.tls_subjects is not None
    return has_keys or others or requires_certificates(settings)


def may_be_open(settings: Settings) -> bool:
    """Return whether a service may answer everyone who can connect, while it knows no callers."""
    return settings.open or requires_certificates(settings) or is_loopback_address(settings.host)


def refuse_exposure(settings: Settings) -> None:
    """Raise InvalidSettingsError if others would reach a service without keys.

    Raises:
        ApiKeysError: As for `has_identities`.
    """
    if has_identities(settings) or may_be_open(settings):
        return
    option, path = ("--data", settings.data) if settings.keys_file is None else ("--keys-file", settings.keys_file)
    place = '--log "$SOFTSTEP_LOG"' if follows_keys(settings) else f"{option} {shlex.quote(str(path))}"
    raise InvalidSettingsError(
        f"other machines can reach {settings.host}, but there are no API keys",
        f"create one, and start again: softstep keys create --name me --scopes predict,feedback,admin {place}",
        "or let everyone who reaches the port make every call: SOFTSTEP_OPEN=true",
    )


def requires_certificates(settings: Settings) -> bool:
    """Return whether only clients with a certificate of the client CA can connect."""
    return settings.tls_client_ca is not None and settings.tls_client_certificate == "required"


def is_loopback_address(host: str) -> bool:
    """Return whether only this machine reaches an address; of names, `localhost` alone is known to be one."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
