"""Model files: where they come from, their formats, and the mapping of their tensor names."""
