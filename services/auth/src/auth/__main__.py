"""`python -m auth COMMAND`."""

from common.cli.roles import RELAY, command_line

main = command_line(
    "auth",
    settings="auth.settings:Settings",
    roles={"api": "auth.app:create_app", "relay": RELAY, "consume": "auth.consumers:handlers"},
    commands={
        "keys": "auth.keys.commands:keys",
        "log-digest": "auth.commands:log_digest",
        "subjects": "auth.repair.commands:subjects",
    },
)

if __name__ == "__main__":
    main()
