"""The prolly map: an ordered, content-addressed map from name to entry, cut into nodes by its own contents.

The same contents have the same root, whatever the history. Everything here is pure: functions are handed a
`load` that gives the node of a digest, and `edit` returns the nodes to write.
"""
