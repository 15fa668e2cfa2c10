"""T4SA and B-T4SA: dataset tooling."""
