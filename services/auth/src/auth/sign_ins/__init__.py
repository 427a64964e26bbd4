"""People's sign-ins: kept for them and for administrators, and compared with the next one."""
