"""Make, read and write Softstep's models in Python: `from softstep import artifact_of, write_artifact`.

The modules below `service` may move between releases; these names do not.
"""

from service import __version__, compilation_notice  # noqa: F401  # kernels may be compiled for minutes
from service.convert.scikit.artifact_of import artifact_of
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_loader import load_artifact

__all__ = ["Artifact", "__version__", "artifact_of", "load_artifact", "write_artifact"]
