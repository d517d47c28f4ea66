"""Who learns: events in, a new state out; reading the log and publishing stand around the pure step."""
