"""Access tokens and refresh tokens: their content, and the tokens of auth itself."""
