"""One outside thing each; adapters never import each other."""
