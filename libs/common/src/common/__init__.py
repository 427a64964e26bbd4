"""Mechanisms shared by the Waybill services. Never a domain noun, never an import of a service."""
