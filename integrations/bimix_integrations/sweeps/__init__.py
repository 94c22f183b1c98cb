"""One module a launcher of sweeps; importing it is what needs the launcher installed."""
