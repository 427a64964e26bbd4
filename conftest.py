pytest_plugins = ["common.testing", "local.testing"]
