"""Values and pure functions: no file is opened below this package."""
