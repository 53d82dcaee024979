"""Integers in files that grow example by example, and what is said of them."""
