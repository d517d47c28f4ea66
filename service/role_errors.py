"""The error of calls that another replica answers, because this one has a role without them."""

from service.errors import SoftstepError


class NotInRoleError(SoftstepError, code="not_in_role"):
    """The role of this replica has no such call."""
