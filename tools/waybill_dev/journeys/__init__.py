"""One order through the whole system, and the trace of its way."""
