"""Treants: directories of a branch with tags, categories and data, found again by them."""
