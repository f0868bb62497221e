"""Making quantised checkpoints."""
