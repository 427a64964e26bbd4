"""What everything else builds on: the state folder, ports, secrets, options, and how programs are started."""
