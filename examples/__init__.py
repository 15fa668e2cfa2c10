"""Example trainers: from streaming shards to trained, evaluated models. Not in the wheel: clone the repository."""
