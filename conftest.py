pytest_plugins = ["common.testing.plugin", "waybill_dev.testing"]
