"""A manifest's calibration: which numbers stand between logits and head, and whether feedback moves them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from service.softmax import calibration
from service.softmax.calibration import IDENTITY, KINDS
from service.softmax.classifier import Head
from service.softmax.kernels.calibration_kernels import SCALE_MAX, SCALE_MIN, SHIFT_MAX
from service.store.artifact.record import Record

Scale = Annotated[float, Field(ge=SCALE_MIN, le=SCALE_MAX)]
Shift = Annotated[float, Field(ge=-SHIFT_MAX, le=SHIFT_MAX)]


class CalibrationRecord(Record):
    """What is done to the logits before the head, so that probabilities are as often right as they say.

    Attributes:
        kind: "temperature" of a softmax head, whose logits are divided by it; "platt" of a sigmoid head, a z + b.
        learn: Whether feedback moves the numbers.
        temperature: The divisor, 1 where it is left out.
        a: The factor, 1 where it is left out.
        b: The summand, 0 where it is left out.
    """

    kind: Literal["temperature", "platt"]
    learn: bool = False
    temperature: Scale | None = None
    a: Scale | None = None
    b: Shift | None = None

    @model_validator(mode="after")
    def _numbers_fit(self) -> "CalibrationRecord":
        if not self.model_dump(exclude={"kind", "learn"}, exclude_none=True).keys() <= IDENTITY[self.kind].keys():
            raise ValueError("the kind temperature has the number temperature, and platt has a and b")
        return self

    def scaling(self) -> calibration.Calibration:
        """What it does to logits."""
        given = self.model_dump(exclude={"kind", "learn"}, exclude_none=True)
        return calibration.Calibration(self.kind, tuple({**IDENTITY[self.kind], **given}.values()))


def calibration_fits_head(record: CalibrationRecord, head: Head) -> bool:
    """Whether logits before that head can be calibrated so."""
    return KINDS.get(head) == record.kind


def describe_calibration(
    record: CalibrationRecord | None, now: calibration.Calibration | None
) -> dict[str, Any] | None:
    """A calibration as a manifest and metadata tell it, with the numbers that it has now; None where there is none."""
    return None if record is None or now is None else {"kind": record.kind, "learn": record.learn, **now.to_dict()}
