"""The files of a repository: segments (the log), the LMDB index, locks."""
