"""One module a trainer; importing it is what needs the trainer installed."""
