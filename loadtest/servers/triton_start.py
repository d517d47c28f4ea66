"""Start the Triton server of the nvidia-pytriton wheel, with its Python backend, HTTP only, CPU only.

Tuned, its dynamic batcher passes all waiting requests to the model, without a delay; by default it passes one at a
time.
"""

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from weights import arguments, load

HERE = Path(__file__).resolve().parent
CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 65536
input [ {{ name: "features" data_type: TYPE_FP32 dims: [ {features} ] }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters [ {{ key: "models" value: {{ string_value: "{models}" }} }} ]
"""
BATCHER = "dynamic_batching { }\n"


def write_model(folder: Path, models: Path, name: str, *, tuned: bool) -> None:
    """Write one model in Triton's layout: its configuration and its code."""
    features, classes = load(models, name).weight.shape
    (folder / "1").mkdir(parents=True)
    config = CONFIG.format(name=name, features=features, classes=classes, models=models.resolve())
    (folder / "config.pbtxt").write_text(config + BATCHER * tuned)
    shutil.copy(HERE / "triton_model.py", folder / "1" / "model.py")
    shutil.copy(HERE / "weights.py", folder / "1")


def write_backend(backends: Path, package: Path) -> None:
    """Join the Python backend with its stub for the running Python; the wheel keeps them apart."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = backends / "python"
    folder.mkdir(parents=True)
    for file in [
        *(package / "backends" / "python").glob("*triton*"),
        *(package / "python_backend_stubs" / version).iterdir(),
    ]:
        shutil.copy(file, folder)


def main() -> None:
    """Write the model repository and replace this process by Triton."""
    options = arguments()
    package = Path(str(files("pytriton"))) / "tritonserver"
    repository, backends = options.scratch / "repository", options.scratch / "backends"
    write_backend(backends, package)
    for name in ("iris", "digits"):
        write_model(repository / name, options.models, name, tuned=options.tuned)
    server = str(package / "bin" / "tritonserver")
    command = [server, f"--model-repository={repository}", f"--backend-directory={backends}"]
    command += [
        "--http-address=127.0.0.1",
        f"--http-port={options.port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
    ]
    # The stub embeds Python and finds this environment by the first python3 on the path.
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{package.parent.parent / 'nvidia_pytriton.libs'}:{Path(sys.base_prefix) / 'lib'}",
    }
    os.execve(server, command, environment)  # noqa: S606 - the launcher becomes the server


if __name__ == "__main__":
    main()
