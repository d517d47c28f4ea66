"""Scripts of the repository as modules; they are in no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.paths import ROOT


def load_script(path: str) -> ModuleType:
    """Import a script, given its path below the repository's root.

    While it is imported it finds the modules of its own folder, as a script does.
    """
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look up the annotations of fields here.
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend((ROOT / path).parent)
        spec.loader.exec_module(module)
    return module
