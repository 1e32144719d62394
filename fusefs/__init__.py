"""The mount: a repository as a file system, its FUSE adapter, its daemon and its command line.

Layers, later ones import earlier ones: layout, ranges → nodes, buffers, rejections → frozen, working, control,
refs_view → view → errnos, lanes, invalidate → operations → daemon → cli. Only operations and daemon know pyfuse3.
"""
