"""Takes an order through the whole system, signs people in, and traces an order."""
