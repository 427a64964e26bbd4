"""`python -m notifier COMMAND`."""

from common.cli.roles import command_line

main = command_line(
    "notifier",
    settings="notifier.settings:Settings",
    roles={
        "api": "notifier.app:create_app",
        "consume": "notifier.consumers:handlers",
        "deliver": "notifier.deliver:deliver",
    },
    commands={
        "deliveries": "notifier.commands:deliveries",
        "preview": "notifier.commands:preview",
        "webhooks": "notifier.webhooks.commands:webhooks",
    },
)

if __name__ == "__main__":
    main()
