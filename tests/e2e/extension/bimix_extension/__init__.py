"""One of everything that a package adds to bimix-tracking."""
