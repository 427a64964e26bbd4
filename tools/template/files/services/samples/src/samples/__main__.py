"""`python -m samples COMMAND`."""

from common.cli.roles import RELAY, command_line

main = command_line(
    "samples",
    settings="samples.settings:Settings",
    roles={"api": "samples.app:create_app", "relay": RELAY, "consume": "samples.consumers:handlers"},
)

if __name__ == "__main__":
    main()
