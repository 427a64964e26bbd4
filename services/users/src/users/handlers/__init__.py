"""Use cases: functions with an explicit session. They record events and never commit; edges do."""
