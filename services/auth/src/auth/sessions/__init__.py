"""Sessions of signed-in people: started, refreshed, ended, and revoked when users reports a change."""
