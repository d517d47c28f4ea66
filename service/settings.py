"""The settings of a service, from three parts: serving_settings.py, grpc_settings.py and access_settings.py.

Each field is read from the environment as `SOFTSTEP_<NAME>` (upper case); options of `softstep serve` override it.
docs/write_settings.py writes docs/settings.md from all parts, and a test checks that they agree.
"""

from pathlib import Path
from typing import Final

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.access_settings import AccessSettings
from service.environment import PREFIX, EnvironmentSource
from service.grpc_settings import GrpcSettings
from service.serving_settings import ServingSettings

KEYS_NAME: Final = "keys.json"
AUDIT_NAME: Final = "audit.jsonl"


class Settings(AccessSettings, GrpcSettings, ServingSettings):
    """The settings of one service, read once at start; nothing reads the environment later."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # Vertex AI sets AIP_STORAGE_URI to nothing where a model has no artifacts
        populate_by_name=True,
        loc_by_alias=False,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # one of the settings is a secret
    )

    @property
    def keys_path(self) -> Path:
        """The file of API keys."""
        return self.data / KEYS_NAME if self.keys_file is None else self.keys_file

    @property
    def audit_path(self) -> Path:
        """The audit log."""
        return self.data / AUDIT_NAME if self.audit_file is None else self.audit_file

    @property
    def has_console(self) -> bool:
        """Whether browsers get the console at `/`: a configured route at that path comes first."""
        return self.console and self.answers_models and "/" not in {self.predict_route, self.health_route}

    @property
    def answers_models(self) -> bool:
        """Whether this replica answers calls to models, and not health and metrics alone."""
        return self.role != "learner"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # replaced by the service's own
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # no file is read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources: options before the environment."""
        return init_settings, EnvironmentSource(settings_cls)
