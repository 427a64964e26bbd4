"""Checks the recorded history of events (`WAYBILL_HISTORY`) against the rules that every step must follow."""
