"""Work on a whole repository: verify and rebuild."""
