"""The local stack behind `./dev`: the real servers and all services, supervised, with all state under `.dev/`."""
