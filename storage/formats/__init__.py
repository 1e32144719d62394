"""Formats that are imported and exported: each a module with an object of the interface in `base.Format`."""
