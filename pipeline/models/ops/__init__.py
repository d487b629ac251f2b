"""Fast operators, apart from the networks that use them."""
