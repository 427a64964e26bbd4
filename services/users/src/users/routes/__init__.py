"""HTTP to handlers. Routes that hash passwords open two transactions and hash between them."""
