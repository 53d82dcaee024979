"""A network in integers as C99: names, types, memory, one function for each layer."""
