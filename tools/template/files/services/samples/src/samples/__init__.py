"""Waybill samples."""
