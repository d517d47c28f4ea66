"""The servers that are measured: Softstep and its peers, and the loads that each one can take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from environments import FASTAPI, HERE, LITSERVE, MLSERVER, ROOT, TRITON, Environment, NotAvailableError
from processes import Running, free_port, serving


@dataclass(frozen=True)
class Contender:
    """A server: its script in loadtest/servers (None: Softstep itself), its environment and its readiness path."""

    name: str
    title: str
    loads: tuple[str, ...]
    ready: str = "/"
    environment: Environment | None = None
    script: str = ""
    empty: bool = False
    arguments: tuple[str, ...] = ()

    def command(self, port: int, models: Path, scratch: Path) -> list[str]:
        """Return the command line that starts the server on `port`."""
        if self.environment is None:
            softstep = ROOT / ".venv" / "bin" / "softstep"
            if not softstep.exists():
                raise NotAvailableError("is not installed in .venv")
            common = ["--models", str(models), "--data", str(scratch), "--host", "127.0.0.1"]
            return [str(softstep), "serve", *common, "--port", str(port), "--workers", "1"]
        python = self.environment.ensure()
        place = ["--port", str(port), "--models", str(models), "--scratch", str(scratch)]
        return [str(python), str(HERE / "servers" / self.script), *place, *self.arguments]

    @contextmanager
    def running(
        self, models: Path, scratch: Path, data: Path | None = None, under: Sequence[str] = ()
    ) -> Iterator[Running]:
        """Start the server on a free port, over `data` or an empty scratch folder, and stop it at the end.

        The command `under` precedes the server's own.
        """
        port = free_port()
        folder = data or scratch / f"{self.name}-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        with serving(
            [*under, *self.command(port, models, folder)], port, self.ready, scratch / f"{self.name}.log"
        ) as server:
            yield server


ONE_ROW = ("predict-1", "infer-1", "binary-1", "explain-1")
EVERYTHING = (*ONE_ROW, "predict-1000", "binary-1000")

SOFTSTEP = Contender("softstep", "**Softstep**", EVERYTHING, ready="/readyz")
RAW = Contender("raw-asgi", "uvicorn, raw ASGI app that answers `{}`", ONE_ROW, "/", FASTAPI, "raw_asgi.py", empty=True)
PYDANTIC = Contender(
    "fastapi-pydantic", "FastAPI + pydantic + NumPy", ("predict-1",), "/openapi.json", FASTAPI, "fastapi_pydantic.py"
)
ORJSON = Contender(
    "fastapi-orjson", "FastAPI + orjson + `np.array`", ("predict-1000",), "/openapi.json", FASTAPI, "fastapi_orjson.py"
)
SKLEARN = Contender(
    "fastapi-sklearn",
    "FastAPI + pydantic + scikit-learn",
    ("predict-1",),
    "/openapi.json",
    FASTAPI,
    "fastapi_sklearn.py",
)
TRITON_SERVER = Contender(
    "triton",
    "Triton, Python backend",
    ("infer-1", "binary-1", "binary-1000"),
    "/v2/models/iris/ready",
    TRITON,
    "triton_start.py",
)
TRITON_TUNED = replace(
    TRITON_SERVER,
    name="triton-tuned",
    title="Triton, Python backend, dynamic batching",
    loads=("infer-1",),
    arguments=("--tuned",),
)
MLSERVER_DEFAULT = Contender(
    "mlserver", "MLServer", ("infer-1",), "/v2/models/iris/ready", MLSERVER, "mlserver_start.py"
)
MLSERVER_TUNED = replace(
    MLSERVER_DEFAULT,
    name="mlserver-tuned",
    title="MLServer, one process, metrics and debug off",
    arguments=("--tuned",),
)
LITSERVE_SERVER = Contender("litserve", "LitServe", ("predict-1",), "/health", LITSERVE, "litserve_api.py")

# In the order of measuring: servers whose ratio is a figure are neighbors.
CONTENDERS = (
    SOFTSTEP,
    RAW,
    PYDANTIC,
    ORJSON,
    SKLEARN,
    TRITON_SERVER,
    TRITON_TUNED,
    MLSERVER_DEFAULT,
    MLSERVER_TUNED,
    LITSERVE_SERVER,
)
