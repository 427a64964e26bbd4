"""`python -m orders COMMAND`."""

from common.cli.roles import RELAY, command_line

main = command_line(
    "orders",
    settings="orders.settings:Settings",
    roles={"api": "orders.app:create_app", "relay": RELAY, "consume": "orders.consumers:handlers"},
)

if __name__ == "__main__":
    main()
