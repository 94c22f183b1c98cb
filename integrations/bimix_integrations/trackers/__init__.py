"""One module a tracker; importing it is what needs the tracker installed."""
