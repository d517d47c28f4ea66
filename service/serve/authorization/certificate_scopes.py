"""Find what clients may do by their certificates, in the file of SOFTSTEP_TLS_SUBJECTS as it is now."""

import time
from pathlib import Path
from typing import Final

from service.access.client_certificate import ClientCertificate
from service.access.principal import Principal
from service.access.subjects_file import SubjectTable, read_subjects
from service.errors import KeyInvalidError, ScopeMissingError
from service.serve.watched_files import WatchedFiles


class CertificateScopes:
    """Finds the principals of verified certificates.

    Args:
        path: The file.
        actor_key: The key of the names of actors.

    Raises:
        TlsFileError: The file is damaged.
        OSError: It cannot be read.

    Attributes:
        file: The entries of the file, which follow it.
    """

    def __init__(self, path: Path, actor_key: bytes) -> None:
        self._actor_key: Final = actor_key
        self.file: Final[WatchedFiles[SubjectTable]] = WatchedFiles(
            (path,), lambda: read_subjects(path), "the file of certificate subjects"
        )

    def principal_of(self, certificate: ClientCertificate) -> Principal:
        """Return the principal of a verified certificate.

        Raises:
            KeyInvalidError: It has expired since the connection began.
            ScopeMissingError: The file has no entry for it.
        """
        if certificate.expires <= time.time():
            raise KeyInvalidError("The client's certificate has expired; connect again with a new one.")
        principal = self.file.value.find(certificate, self._actor_key)
        if principal is None:
            raise ScopeMissingError(
                "The client's certificate permits no calls; send a key, or use another certificate."
            )
        return principal
