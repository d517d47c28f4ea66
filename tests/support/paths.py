"""The root folder of the repository, and the folder of the shipped models."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models"
