"""One loader in three frameworks; run as modules from the checkout, see shared.py."""
