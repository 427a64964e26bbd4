"""HTTP to handlers. Routes that hash passwords own two transactions, with the hashing between them."""

from users.routes import accounts, administration, internal, links, pages

PUBLIC = [accounts.router, administration.router, links.router, pages.router]
INTERNAL = [internal.router]
