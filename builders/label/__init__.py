"""The text labeller: from tweets to probabilities of negative, neutral and positive (extra `[label]`)."""
