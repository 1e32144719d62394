"""Objects, refs and staging over the log and its index."""
