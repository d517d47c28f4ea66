"""The genesis that binds a stream to its model is the same in every release; otherwise no stream would be found."""

from pathlib import Path

import pytest

from service.store.artifact.artifact import read_artifact
from service.store.artifact.fingerprint import compute_genesis
from tests.support.artifact_files import MakeArtifact
from tests.support.imported_models import IMPORTED_NAMES
from tests.support.shipped_fields import FIELD_BYTES_MAX, FIELD_NAMES

MODELS = Path(__file__).parents[3] / "models"
GOLDEN = Path(__file__).parents[2] / "golden"
# By the first fold, as the release that made the model wrote it into its streams.
PINNED = {
    "breast-cancer": "1d929b06e7e765a5e0e2ed247930b0888a6b6d2cee8c2b618797f92a5fba918b",
    "digits": "ba51a31a90797367a490cb886a52b3d6b4f9bc27c5dca17c24c2483f556ef655",
    "digits-mlp": "f46bce3e3ab6f849ea03366dd21d5e74bb1fac604cc49db2825ed0095fb9b853",
    "iris": "4815d5097b03cc887a45cbaa997c0cac6a408073260148f23482978a931eeb1d",
    "phishing": "64fe98a3dda3ece6e7bca76973e3b5b86d6d2f317177f687120bf7b6fe844032",
    "segment": "e4cfbeb39e8fbd91577090bf585d6b0e7d3d0cefb0f0d7d7bf1603239c91e2ac",
    "wine": "7fe87e5fc769775b2ebdd826d0c1d45434451c93fb3bf33bf4897e43ca8a2835",
    "yeast": "caffb945df2fd504b9ccf47735f3b2c2d885cf6d8b3a9c9ea9ea7aa139cb39dc",
    "release/models/digits-mlp": "eef6263e9f3207190ae68de2031f208fec98b21ce406b921037401b8a310089a",
    "artifact": "f6b8d132bb6bd7059d89226673cd43152619ff9f232f417cfb32a8344edea9b6",
    "network": "c4126fade4e9699c9c64a355e417abcca23b260011d6c15847d6506c4c8153b5",
}


@pytest.mark.parametrize("name", PINNED)
def test_the_genesis_of_a_shipped_model_stays(name: str) -> None:
    """Also those of golden artifacts, with a stage, thresholds and a rule, of networks, and of an earlier release."""
    folder = MODELS / name if name in {path.name for path in MODELS.iterdir()} else GOLDEN / name
    assert compute_genesis(read_artifact(folder / "1", 1 << 20), 1).hex() == PINNED[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("penguins", "cedbb3d4e35d89d2136438f68aca402c21b5a2f9dda40be1f736b242d2f018f9"),
        ("languages", "30aaa508421ca73ea5b7770e998b56153bb7d3735b63af55998768c41e5ac521"),
        ("characters", "e731dbe99d774542dbc75022b5385dcbd003abe8d9f42214490d9fcc00577e25"),
        ("flares", "9df0d5b743a8bc6669e5d31b4fd1e6d6623ef99da919deff2829e5f89c764139"),
        ("fields", "6da83fe256e03357a76b077006cb393aeef8896e463c023cf4026481bc2d98a5"),
        ("sparse_fields", "ec1c59d6cf73d72afb7809344b5b10cd7cca682a10479e448bdf6b6183010ea6"),
    ],
)
def test_the_genesis_of_a_model_with_fields_stays(name: str, expected: str) -> None:
    """By the fold of the release that had them first."""
    folder = MODELS / name if (MODELS / name).exists() else GOLDEN / name
    assert compute_genesis(read_artifact(folder / "1", FIELD_BYTES_MAX), 2).hex() == expected


def test_the_genesis_of_a_calibrated_model_stays(make_artifact: MakeArtifact) -> None:
    """It counts the numbers that the kind has, written or not, and no others."""
    made = [
        make_artifact(calibration={"kind": "temperature", "learn": True, **numbers})
        for numbers in ({}, {"temperature": 1.0}, {"temperature": 1.5})
    ]
    found = [compute_genesis(artifact, 1).hex() for artifact in made]
    assert found[0] == found[1] == "f04293881f665040bbd6f2e9d4502173c2c4cca8a33a7130926f77580a5201fd"
    assert found[2] != found[0]


def test_every_shipped_model_is_pinned() -> None:
    """One that is added gets its line here."""
    shipped = {path.parent.name for path in MODELS.glob("*/1")}
    assert shipped | {"artifact", "network", "release/models/digits-mlp"} == {*PINNED, *FIELD_NAMES, *IMPORTED_NAMES}
