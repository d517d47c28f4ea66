"""Import what only some installations have: the packages of an extra of the wheel."""

from pkgutil import resolve_name
from typing import Any, Final

from service.errors import SoftstepError

OWN_PACKAGE: Final = "service"


def resolve_optional(name: str, command: str, extra: str) -> Any:  # noqa: ANN401  # whatever has the name
    """Return an object of a module that imports packages of an extra.

    Args:
        name: "module:object".
        command: The command that needs it, for the error.
        extra: The extra.

    Raises:
        SoftstepError: A package is not installed; the message says how to install it.
    """
    try:
        return resolve_name(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == OWN_PACKAGE:
            raise
        raise SoftstepError(f'`{command}` needs more packages: pip install "softstep[{extra}]"') from None
