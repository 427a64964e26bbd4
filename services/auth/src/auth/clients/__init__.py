"""OAuth clients managed by administrators."""
