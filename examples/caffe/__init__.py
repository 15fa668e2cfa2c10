"""Caffe and DIGITS files."""
