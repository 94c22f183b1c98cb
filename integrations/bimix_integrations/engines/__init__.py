"""What counts a corpus that is too large for one machine."""
