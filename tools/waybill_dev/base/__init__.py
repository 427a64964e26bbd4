"""The state folder, ports, secrets and options that everything else is built on."""
