"""Models that turn passages into vectors, from files on the disk: one library a module."""
