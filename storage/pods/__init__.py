"""Dicts that survive, and work lists: see storage.pods.format for what they are made of."""
