"""A sweep as a grid, a law's problems on it, and how they are minimised."""
