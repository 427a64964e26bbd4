"""OAuth clients that administrators manage."""
