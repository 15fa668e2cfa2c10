"""What `examples/relabel.py` and `examples/label_noise.py` are made of: other labels, agreement, label noise."""
