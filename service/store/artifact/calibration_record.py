"""The calibration in a manifest: the numbers between logits and head, and whether feedback changes them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from service.record import Record
from service.softmax import calibration
from service.softmax.calibration import IDENTITY, KINDS
from service.softmax.classifier import Head
from service.softmax.kernels.calibration_kernels import SCALE_MAX, SCALE_MIN, SHIFT_MAX

Scale = Annotated[float, Field(ge=SCALE_MIN, le=SCALE_MAX)]
Shift = Annotated[float, Field(ge=-SHIFT_MAX, le=SHIFT_MAX)]


class CalibrationRecord(Record):
    """The calibration of the logits before the head, which makes probabilities match observed frequencies.

    Attributes:
        kind: "temperature" for a softmax head, whose logits are divided by it; "platt" for a sigmoid head, a z + b.
        learn: Whether feedback changes the numbers.
        temperature: The divisor, by default 1.
        a: The factor, by default 1.
        b: The summand, by default 0.
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
        """Return the calibration with all its numbers."""
        given = self.model_dump(exclude={"kind", "learn"}, exclude_none=True)
        return calibration.Calibration(self.kind, tuple({**IDENTITY[self.kind], **given}.values()))


def calibration_fits_head(record: CalibrationRecord, head: Head) -> bool:
    """Return whether a calibration of this kind exists for a head."""
    return KINDS.get(head) == record.kind


def describe_calibration(
    record: CalibrationRecord | None, now: calibration.Calibration | None
) -> dict[str, Any] | None:
    """Return a calibration as manifests and metadata show it, with its current numbers; None without calibration."""
    return None if record is None or now is None else {"kind": record.kind, "learn": record.learn, **now.to_dict()}
