"""Who answers: HTTP in, probabilities out; the only room that knows HTTP."""
