"""The public verbs: each file composes the rooms into one thing a user asks for. Only this room sees all the others."""
