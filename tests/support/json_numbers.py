"""Texts in place of a number in a JSON document, and a text and a number that nothing may repeat."""

CANARY = "c4nary"
# A number in bodies that no error, log or metric may repeat.
CANARY_NUMBER = 40427176
NUMBERS = {
    "minus zero": "-0", "minus zero point": "-0.0", "small": "5e-324", "smaller": "1e-400", "subnormal": "1e-45",
    "seventeen digits": "0.12345678901234567", "many digits": "0." + "123456789" * 100,
    "large": "3.4028234663852886e38", "rounds to infinity": "3.4028235677973366e38", "rounds down": "3.40282356e38",
    "1e39": "1e39", "1e308": "1e308", "1e999": "1e999", "-1e999": "-1e999", "exponent": "1E+2",
    "huge exponent": "1e99999", "integer": "9007199254740993",
    "2^63": str(2**63), "2^64 - 1": str(2**64 - 1), "2^64": str(2**64),
    "-2^63": str(-(2**63)), "-2^63 - 1": str(-(2**63) - 1), "5,000 digits": "9" * 5000, "zeros": "1" + "0" * 300,
    "true": "true", "false": "false", "null": "null", "string": '"1.5"', "object": "{}", "list": "[1]", "empty": "[]",
    "NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "inf": "inf", "nan": "nan", "plus": "+1",
    "leading zero": "01", "point first": ".5", "point last": "5.", "hex": "0x10", "underscore": "1_0", "nothing": "",
    "comment": "1/**/", "exponent alone": "1e", "two signs": "--1", "unicode digit": "\u0661", "full width": "\uff11",
}  # fmt: skip
