"""What `examples/train.py` is made of: configuration, machine, data, optimiser, checkpoints, report."""
