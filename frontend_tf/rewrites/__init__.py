"""Rewrites of a GraphDef, one file each; `table` lists them in their order."""
