"""`python -m users COMMAND`."""

from common.cli.roles import RELAY, command_line

main = command_line(
    "users",
    settings="users.settings:Settings",
    roles={"api": "users.app:create_app", "relay": RELAY},
    commands={"promote": "users.commands:promote", "authenticators": "users.commands:authenticators"},
)

if __name__ == "__main__":
    main()
