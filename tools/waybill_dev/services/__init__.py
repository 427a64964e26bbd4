"""The services as programs: roles, settings, migrations, releases."""
