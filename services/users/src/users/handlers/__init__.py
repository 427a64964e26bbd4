"""Use cases: functions that take a session. They record events and never commit; routes and commands do."""
