"""The settings of gRPC: the port and the limits of its connections; those of HTTP hold too."""

from pydantic import Field
from pydantic_settings import BaseSettings

from service.setting_types import Count, MiB, Port


class GrpcSettings(BaseSettings):
    """The part of `Settings` for gRPC."""

    # gRPC
    grpc_port: Port | None = Field(
        None,
        description="Port of the v2 protocol over gRPC; 0 means any free port. Unset: there is none. Triton uses 8001. "
        "Needs `softstep[grpc]`.",
    )
    grpc_streams_max: Count = Field(
        128, description="Calls of a connection that are in progress at one time; clients wait with further ones."
    )
    grpc_window_bytes: int = Field(
        MiB,
        ge=65_535,
        le=2**31 - 1,
        description="Bytes that a client may send ahead on one stream, and on a connection. At 10 ms to the client and "
        "back, 1 MiB is 800 Mbit/s.",
    )
    grpc_resets_max: Count = Field(
        1000,
        description="Calls that a client may cancel at once on a connection, which is closed after more; a thirtieth "
        "of them is permitted again each second.",
    )
    grpc_unsent_bytes_max: Count = Field(
        64 * MiB,
        description="Bytes of answers that a connection holds because its client does not read them; an answer above "
        "the limit is dropped and its call refused.",
    )
