"""Solvers of smooth problems on the simplex, a batch at once: within a box, and within guards and a distance too."""
