"""Waybill's catalogue and orders."""
